"""Functions whose call leaves nothing behind, by name, as PostgreSQL and the extensions that Django supports define them.

What is not in these tables is taken to write. Before adding a name, make sure that no overload of it

- changes anything that another session, or a later statement of this one, can see: a row, a sequence, a setting, a lock, a cursor;
- runs SQL that it is given as text, or a function that it is given by name (`query_to_xml`, `ts_stat`, `crosstab`, `st_mapalgebra`);
- asks for what only the primary knows (`pg_try_advisory_lock`, `pg_sequence_last_value`, `pg_current_wal_lsn`).

PostgreSQL's own label is not enough: `txid_current` is labelled stable, and writes.
"""

from __future__ import annotations


def names(text: str) -> frozenset[str]:
    """Return the names in a text that separates them by whitespace."""
    return frozenset(text.split())


AGGREGATES = names(
    """
    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp cume_dist dense_rank every
    first_value json_agg json_agg_strict json_arrayagg json_object_agg json_object_agg_strict json_object_agg_unique
    json_object_agg_unique_strict json_objectagg jsonb_agg jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict
    jsonb_object_agg_unique jsonb_object_agg_unique_strict lag last_value lead max min mode nth_value ntile percent_rank
    percentile_cont percentile_disc range_agg range_intersect_agg rank regr_avgx regr_avgy regr_count regr_intercept regr_r2
    regr_slope regr_sxx regr_sxy regr_syy row_number stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance xmlagg
    """
)

NUMBERS = names(
    """
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd degrees div erf
    erfc exp factorial float4 float8 floor gamma gcd int2 int4 int8 lcm lgamma ln log log10 min_scale mod pi pow power radians round
    scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc width_bucket
    """
)

TEXTS = names(
    """
    ascii bit_count bit_length bpchar btrim casefold char_length character_length chr concat concat_ws convert convert_from
    convert_to crc32 crc32c decode encode format get_bit get_byte initcap is_normalized left length like lower lpad ltrim md5
    notlike octet_length parse_ident quote_ident quote_literal quote_nullable regexp_count regexp_instr regexp_like regexp_match
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim
    set_bit set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table strpos substr text to_ascii
    to_bin to_char to_hex to_number to_oct translate unicode_assigned unistr upper
    """
)

TIMES = names(
    """
    age clock_timestamp date date_add date_bin date_part date_subtract date_trunc isfinite justify_days justify_hours
    justify_interval make_date make_interval make_time make_timestamp make_timestamptz now overlaps statement_timestamp timeofday
    timestamptz timezone to_date to_timestamp transaction_timestamp
    """
)

DOCUMENTS = names(
    """
    array_to_json json_array json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
    json_each json_each_text json_exists json_extract_path json_extract_path_text json_object json_object_keys json_populate_record
    json_populate_recordset json_query json_scalar json_serialize json_strip_nulls json_table json_to_record json_to_recordset
    json_typeof json_value jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object
    jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys
    jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array
    jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
    jsonb_populate_record_valid jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record
    jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb xml_is_well_formed xml_is_well_formed_content
    xml_is_well_formed_document xmlcomment xmltext xpath xpath_exists
    """
)

ARRAYS_AND_RANGES = names(
    """
    array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions array_prepend
    array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_string array_upper cardinality
    datemultirange daterange enum_first enum_last enum_range generate_series generate_subscripts int4multirange int4range
    int8multirange int8range isempty lower_inc lower_inf multirange num_nonnulls num_nulls nummultirange numrange range_merge
    trim_array tsmultirange tsrange tstzmultirange tstzrange unnest upper_inc upper_inf
    """
)

SEARCH = names(
    """
    array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery querytree
    setweight strip to_tsquery to_tsvector ts_delete ts_filter ts_headline ts_lexize ts_rank ts_rank_cd tsquery_phrase
    tsvector_to_array websearch_to_tsquery
    """
)

SHAPES_AND_ADDRESSES = names(
    """
    abbrev area bound_box box broadcast center circle diagonal diameter family height host hostmask inet_merge inet_same_family
    isclosed ishorizontal isopen isparallel isperp isvertical line lseg masklen netmask network npoints path pclose point polygon
    popen radius set_masklen slope width
    """
)

CATALOG = names(
    """
    col_description current_database current_schema current_schemas current_setting format_type has_any_column_privilege
    has_column_privilege has_database_privilege has_function_privilege has_language_privilege has_schema_privilege
    has_sequence_privilege has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege inet_client_addr
    inet_client_port inet_server_addr inet_server_port obj_description pg_backend_pid pg_client_encoding pg_collation_is_visible
    pg_column_compression pg_column_size pg_conf_load_time pg_current_snapshot pg_database_size pg_describe_object
    pg_encoding_to_char pg_function_is_visible pg_get_constraintdef pg_get_expr pg_get_function_arg_default
    pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody pg_get_functiondef
    pg_get_indexdef pg_get_keywords pg_get_partition_constraintdef pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence
    pg_get_statisticsobjdef pg_get_statisticsobjdef_columns pg_get_statisticsobjdef_expressions pg_get_triggerdef pg_get_userbyid
    pg_get_viewdef pg_has_role pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_indexes_size
    pg_input_is_valid pg_is_in_recovery pg_is_other_temp_schema pg_is_wal_replay_paused pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible
    pg_opfamily_is_visible pg_options_to_table pg_partition_ancestors pg_partition_root pg_partition_tree pg_postmaster_start_time
    pg_relation_filenode pg_relation_filepath pg_relation_is_publishable pg_relation_is_updatable pg_relation_size
    pg_sequence_parameters pg_size_bytes pg_size_pretty pg_statistics_obj_is_visible pg_table_is_visible pg_table_size
    pg_tablespace_location pg_tablespace_size pg_timezone_names pg_total_relation_size pg_trigger_depth pg_ts_config_is_visible
    pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof pg_wal_lsn_diff
    row_security_active shobj_description to_regclass to_regcollation to_regnamespace to_regoper to_regoperator to_regproc
    to_regprocedure to_regrole to_regtype version
    """
)

OTHERS = names("gen_random_uuid pg_sleep pg_sleep_for pg_sleep_until random random_normal uuid_extract_timestamp uuidv4 uuidv7")

BUILT_IN = AGGREGATES | NUMBERS | TEXTS | TIMES | DOCUMENTS | ARRAYS_AND_RANGES | SEARCH | SHAPES_AND_ADDRESSES | CATALOG | OTHERS

# Only what Django emits, and names that nobody gives to anything else: these live in schemas of the user's own.
EXTENSIONS = names(
    """
    akeys avals cosine_distance digest dmetaphone dmetaphone_alt earth_box earth_distance gen_random_bytes gen_salt hamming_distance
    hstore hstore_to_array hstore_to_json hstore_to_json_loose hstore_to_jsonb hstore_to_jsonb_loose hstore_to_matrix inner_product
    jaccard_distance l1_distance l2_distance l2_normalize levenshtein levenshtein_less_equal ll_to_earth metaphone pgp_pub_decrypt
    pgp_pub_decrypt_bytea pgp_sym_decrypt pgp_sym_decrypt_bytea show_limit show_trgm similarity skeys soundex strict_word_similarity
    subvector svals unaccent uuid_generate_v1 uuid_generate_v1mc uuid_generate_v3 uuid_generate_v4 uuid_generate_v5 vector_dims
    vector_norm word_similarity
    """
)

# Names, not the prefix `st_`: PostGIS has st_createoverview and st_fromflatgeobuftotable, which create tables, and st_mapalgebra,
# which calls a function that it is given; and the prefix belongs to nobody (`st_archive_orders`).
POSTGIS = names(
    """
    geography geometry geometrytype postgis_full_version postgis_geos_version postgis_lib_build_date
    postgis_lib_version postgis_libxml_version postgis_proj_version postgis_scripts_installed postgis_version
    st_3dclosestpoint st_3ddfullywithin st_3ddistance st_3ddwithin st_3dextent st_3dintersects st_3dlength
    st_3dlineinterpolatepoint st_3dlongestline st_3dmakebox st_3dmaxdistance st_3dperimeter st_3dshortestline st_addmeasure
    st_addpoint st_affine st_angle st_area st_area2d st_asbinary st_asencodedpolyline st_asewkb st_asewkt st_asflatgeobuf
    st_asgeobuf st_asgeojson st_asgml st_ashexewkb st_askml st_aslatlontext st_asmarc21 st_asmvt st_asmvtgeom st_assvg st_astext
    st_astwkb st_asx3d st_azimuth st_band st_boundary st_boundingdiagonal st_box2dfromgeohash st_buffer st_buildarea st_centroid
    st_chaikinsmoothing st_cleangeometry st_clip st_clipbybox2d st_closestpoint st_closestpointofapproach st_clusterdbscan
    st_clusterintersecting st_clusterkmeans st_clusterwithin st_collect st_collectionextract st_collectionhomogenize
    st_concavehull st_contains st_containsproperly st_convexhull st_coorddim st_coveredby st_covers st_cpawithin st_crosses
    st_curvetoline st_delaunaytriangles st_dfullywithin st_difference st_dimension st_disjoint st_distance st_distancecpa
    st_distancesphere st_distancespheroid st_dump st_dumppoints st_dumprings st_dumpsegments st_dwithin st_endpoint st_envelope
    st_equals st_estimatedextent st_expand st_extent st_exteriorring st_filterbym st_flipcoordinates st_force2d st_force3d
    st_force3dm st_force3dz st_force4d st_forcecollection st_forcecurve st_forcepolygonccw st_forcepolygoncw st_forcerhr
    st_forcesfs st_frechetdistance st_generatepoints st_geogfromtext st_geogfromwkb st_geographyfromtext st_geohash
    st_geomcollfromtext st_geomcollfromwkb st_geometricmedian st_geometryfromtext st_geometryn st_geometrytype st_geomfromewkb
    st_geomfromewkt st_geomfromgeohash st_geomfromgeojson st_geomfromgml st_geomfromkml st_geomfromtext st_geomfromtwkb
    st_geomfromwkb st_hasarc st_hausdorffdistance st_height st_hexagon st_hexagongrid st_interiorringn st_interpolatepoint
    st_intersection st_intersects st_isclosed st_iscollection st_isempty st_ispolygonccw st_ispolygoncw st_isring st_issimple
    st_isvalid st_isvaliddetail st_isvalidreason st_isvalidtrajectory st_length st_length2d st_length2dspheroid
    st_lengthspheroid st_letters st_linecrossingdirection st_linefromencodedpolyline st_linefrommultipoint st_linefromtext
    st_linefromwkb st_lineinterpolatepoint st_lineinterpolatepoints st_linelocatepoint st_linemerge st_linestringfromwkb
    st_linesubstring st_linetocurve st_locatealong st_locatebetween st_locatebetweenelevations st_longestline st_m st_makebox2d
    st_makeenvelope st_makeline st_makepoint st_makepointm st_makepolygon st_makevalid st_maxdistance st_maximuminscribedcircle
    st_memsize st_memunion st_metadata st_minimumboundingcircle st_minimumboundingradius st_minimumclearance
    st_minimumclearanceline st_mlinefromtext st_mlinefromwkb st_mpointfromtext st_mpointfromwkb st_mpolyfromtext st_mpolyfromwkb
    st_multi st_multilinefromwkb st_multilinestringfromtext st_multipointfromtext st_multipointfromwkb st_multipolyfromwkb
    st_multipolygonfromtext st_ndims st_node st_normalize st_npoints st_nrings st_numbands st_numgeometries st_numinteriorring
    st_numinteriorrings st_numpatches st_numpoints st_offsetcurve st_orderingequals st_orientedenvelope st_overlaps st_patchn
    st_perimeter st_perimeter2d st_point st_pointfromgeohash st_pointfromtext st_pointfromwkb st_pointinsidecircle st_pointm
    st_pointn st_pointonsurface st_points st_pointz st_pointzm st_polyfromtext st_polyfromwkb st_polygon st_polygonfromtext
    st_polygonfromwkb st_polygonize st_project st_quantizecoordinates st_reduceprecision st_relate st_relatematch st_removepoint
    st_removerepeatedpoints st_reverse st_rotate st_rotatex st_rotatey st_rotatez st_scale st_scroll st_segmentize
    st_seteffectivearea st_setpoint st_setsrid st_sharedpaths st_shiftlongitude st_shortestline st_simplify
    st_simplifypolygonhull st_simplifypreservetopology st_simplifyvw st_snap st_snaptogrid st_split st_square st_squaregrid
    st_srid st_startpoint st_subdivide st_summary st_swapordinates st_symdifference st_symmetricdifference st_tileenvelope
    st_touches st_transform st_translate st_transscale st_triangulatepolygon st_unaryunion st_union st_value st_voronoilines
    st_voronoipolygons st_width st_within st_wkbtosql st_wkttosql st_wrapx st_x st_xmax st_xmin st_y st_ymax st_ymin st_z st_zmax
    st_zmflag st_zmin
    """
)

HARMLESS = BUILT_IN | EXTENSIONS | POSTGIS
