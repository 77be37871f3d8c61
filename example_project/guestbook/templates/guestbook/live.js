// Keeps the cards of the hosts fresh while the page stays open; without it they are right when the page loads.
setInterval(async () => {
  if (document.hidden) return;
  const response = await fetch("{% url 'hosts' %}").catch(() => null);
  if (!response || !response.ok) return;
  for (const [alias, host] of Object.entries(await response.json())) {
    const card = document.querySelector(`[data-host="${alias}"]`);
    if (!card) continue;
    Object.assign(card.dataset, {state: host.state, running: host.is_running ? "yes" : "no", hindered: host.is_hindered ? "yes" : "no"});
    card.querySelector(".word").textContent = host.state;
    card.querySelector(".detail").textContent = host.detail;
  }
}, 1500);
