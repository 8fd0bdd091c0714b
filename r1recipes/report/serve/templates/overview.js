// The table of runs: sorted, filtered and selected by the reader, whatever comes from the server.
// The choice is in the address, so that it survives a reload and can be shared.
"use strict";

if (document.getElementById("filter")) {
  const byId = id => document.getElementById(id);
  const filter = byId("filter"), state = byId("state"), trials = byId("trials");
  const compare = byId("compare"), picked = new Set();
  const chosen = new URLSearchParams(location.hash.slice(1));
  let [column, direction] = (chosen.get("sort") ?? "").split(" ");
  filter.value = chosen.get("q") ?? "";
  state.value = chosen.get("state") ?? "";
  trials.checked = chosen.get("trials") === "1";
  const rows = () => [...document.querySelectorAll("#runs > tr")];

  function remember() {
    const values = { q: filter.value, state: state.value, trials: trials.checked ? "1" : "",
      sort: column ? `${column} ${direction}` : "" };
    const entries = Object.entries(values).filter(([, value]) => value);
    history.replaceState(null, "", entries.length ? `#${new URLSearchParams(entries)}` : location.pathname);
  }

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    const all = rows();
    for (const row of all) {
      const fits = words.every(word => row.dataset.text.includes(word))
        && (!state.value || row.dataset.state === state.value)
        && (trials.checked || !row.dataset.trial || words.length > 0);
      row.hidden = !fits;
      shown += fits;
    }
    byId("shown").textContent = shown < all.length ? ` ${shown} of ${all.length} are shown.` : "";
  }

  // Numbers by size, texts by their letters; what has no value comes last in either direction.
  function compared(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    const isNumber = !Number.isNaN(x) && !Number.isNaN(y);
    return sign * (isNumber ? x - y : a.localeCompare(b, "en", { numeric: true }));
  }

  function sort() {
    const headings = [...document.querySelectorAll(".runs thead [data-key]")];
    for (const heading of headings) {
      const isThis = heading.dataset.key === column;
      const word = direction === "down" ? "descending" : "ascending";
      heading.setAttribute("aria-sort", isThis ? word : "none");
    }
    const place = headings.findIndex(heading => heading.dataset.key === column) + 1;
    const body = byId("runs");
    if (!body) return;
    const now = rows(), value = row => row.children[place].dataset.value;
    const since = row => `${row.dataset.since} ${row.dataset.key}`;
    const sign = direction === "down" ? -1 : 1;
    const order = place > 0 ? [...now].sort((a, b) => compared(value(a), value(b), sign))
      : [...now].sort((a, b) => compared(since(b), since(a), 1));
    if (order.every((row, i) => row === now[i])) return;
    const focused = document.activeElement;
    body.append(...order);
    if (body.contains(focused)) focused.focus({ preventScroll: true });
  }

  function pick() {
    const present = new Set([...document.querySelectorAll("#runs input")].map(box => box.value));
    for (const address of picked) if (!present.has(address)) picked.delete(address);
    const isReady = picked.size > 1;
    compare.setAttribute("aria-disabled", String(!isReady));
    compare.textContent = isReady ? `Compare ${picked.size} runs` : "Compare: select two runs";
    if (isReady) compare.href = `/compare?${[...picked].map(address => `run=${address}`).join("&")}`;
    else compare.removeAttribute("href");
  }

  function arrive() {
    sort();
    show();
    pick();
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("[data-sort]");
    if (!button) return;
    const first = button.dataset.first || "up", other = first === "up" ? "down" : "up";
    if (column !== button.dataset.sort) [column, direction] = [button.dataset.sort, first];
    else if (direction === first) direction = other;
    else column = direction = "";
    sort();
    remember();
  });
  document.addEventListener("change", event => {
    if (!event.target.matches("#runs input")) return;
    if (event.target.checked) picked.add(event.target.value);
    else picked.delete(event.target.value);
    pick();
  });
  document.querySelector(".tools").addEventListener("submit", event => event.preventDefault());
  for (const control of [filter, state, trials])
    control.addEventListener("input", () => { show(); remember(); });
  document.addEventListener("followed", arrive);
  for (const box of document.querySelectorAll("#runs input:checked")) picked.add(box.value);
  arrive();
}
