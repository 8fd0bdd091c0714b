// Asks the server for what is new, and puts it into the page where it differs. Focus, scroll
// position, what is open, selected or typed stay: they are in nodes that are not replaced.
"use strict";

{
  const EVERY = 2000, SOON = 250, LONGEST = 15000, PATIENCE = 30000;  // milliseconds
  const main = document.querySelector("main[data-live]");
  const OWN = new Set(["open", "aria-sort"]);  // attributes that the reader changes
  const canHover = matchMedia("(hover: hover)").matches;  // after a tap, `:hover` does not end
  let tag = main.dataset.tag, failures = 0, isStale = false, timer;

  // What tells an element from its neighbours: its key, its id, or the heading in it.
  function keyOf(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return `#${node.nodeType}`;
    const isHeaded = node.tagName === "SECTION" || node.tagName === "DETAILS";
    const name = node.dataset.key ?? node.id ?? "";
    return `${node.tagName} ${name || (isHeaded && node.querySelector("h2, summary")?.textContent)}`;
  }

  function update(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.dataset.own !== undefined) return;
    if (old.tagName === "FIGURE") return updateFigure(old, fresh);
    const isAtEnd = old.dataset.tail !== undefined
      && old.scrollTop + old.clientHeight >= old.scrollHeight - 4;
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !OWN.has(name) && !(name === "hidden" && old.tagName === "TR"))
        old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (!OWN.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    updateChildren(old, fresh);
    if (isAtEnd) old.scrollTop = old.scrollHeight;
  }

  function updateChildren(old, fresh) {
    const spare = new Map();
    for (const child of old.childNodes) {
      const key = keyOf(child);
      if (!spare.has(key)) spare.set(key, []);
      spare.get(key).push(child);
    }
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const same = spare.get(keyOf(child))?.shift();
      if (same === undefined) {
        old.insertBefore(document.adoptNode(child), place);
        if (child.nodeType === Node.ELEMENT_NODE) begin(child);
        continue;
      }
      // What the reader has sorted stays in his order.
      if (same === place) place = place.nextSibling;
      else if (old.tagName !== "TBODY") old.insertBefore(same, place);
      update(same, child);
    }
    for (const child of [...spare.values()].flat()) child.remove();
  }

  // A drawing is replaced as a whole, once nobody points at it.
  function updateFigure(old, fresh) {
    const text = figure => [...figure.children].filter(child => !child.matches(".tip"))
      .map(child => child.outerHTML).join();
    if (text(old) === text(fresh)) return;
    if ((canHover && old.matches(":hover")) || old.contains(document.activeElement)) {
      isStale = true;
      return;
    }
    const figure = document.adoptNode(fresh);
    old.replaceWith(figure);
    enliven(figure);
  }

  function begin(node) {
    if (node.matches("figure[data-key]")) enliven(node);
    else node.querySelectorAll("figure[data-key]").forEach(enliven);
  }

  function say(text, isLost) {
    const live = document.getElementById("live");
    live.classList.toggle("lost", isLost);
    if (live.textContent !== text) live.textContent = text;
  }

  function take(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const freshMain = fresh.querySelector("main[data-live]");
    isStale = false;
    if (document.title !== fresh.title) document.title = fresh.title;
    update(main, freshMain);
    arrange(main);
    tag = isStale ? "" : freshMain.dataset.tag;  // what had to wait is asked for again
    document.dispatchEvent(new Event("followed"));
  }

  async function follow() {
    try {
      const response = await fetch(location.pathname + location.search, {
        headers: { "If-None-Match": tag }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE),
      });
      const text = response.status === 304 ? "" : await response.text();
      if (response.ok) take(text);
      failures = 0;
      if (response.ok || response.status === 304) say("following", false);
      else if (response.status === 404) say("no longer there: this is its last state", true);
      else say(`the server answers ${response.status}`, true);
    } catch (error) {
      if (!["TypeError", "TimeoutError", "AbortError"].includes(error.name)) throw error;
      failures += 1;
      say("the server does not answer: this may be old", true);
    }
    again();
  }

  function again() {
    clearTimeout(timer);
    const pause = main.dataset.pending === "0" ? EVERY : SOON;
    if (!document.hidden) timer = setTimeout(follow, Math.min(LONGEST, pause * 2 ** Math.min(failures, 4)));
  }

  document.addEventListener("toggle", event => {  // a log is opened at its end
    for (const tail of event.target.querySelectorAll("[data-tail]")) tail.scrollTop = tail.scrollHeight;
  }, true);
  document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : follow());
  again();
}
