"""Celery tasks see what their publisher wrote. Add `"django_pglb.contrib.celery"` to `INSTALLED_APPS`.

How a task reads is said per task, `@shared_task(db_consistency="sticky")`, or for all by `PGLB_TASK_CONSISTENCY`.
"""
