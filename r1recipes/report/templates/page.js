// Values under the pointer, each chart as CSV and PNG, and what is open at first. Everything comes
// from the page itself.
"use strict";

const UNITS = {
  "": v => plain(v), "%": v => plain(100 * v) + " %", "s": v => plain(v) + " s",
  "bytes": v => plain(v / 2 ** 30) + " GiB",
};

function plain(value) {
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
}

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A wide card has two drawings, of which one is shown.
function drawn(figure) {
  const drawings = [...figure.querySelectorAll("svg")];
  return drawings.find(svg => svg.getBoundingClientRect().width > 0) ?? drawings[0];
}

// The drawing at three times its size under its title, in the colours that the reader sees.
function png(figure, done) {
  const svg = drawn(figure), copy = svg.cloneNode(true);
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const elements = [...svg.querySelectorAll("*")], copies = [...copy.querySelectorAll("*")];
  const names = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "opacity", "font-size", "font-weight", "font-family"];
  elements.forEach((element, i) => {
    const style = getComputedStyle(element);
    copies[i].setAttribute("style", names.map(n => `${n}:${style.getPropertyValue(n)}`).join(";"));
  });
  copy.querySelector(".rule")?.remove();
  const scale = 3, head = 30;
  copy.setAttribute("width", width * scale);
  copy.setAttribute("height", height * scale);
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas"), style = getComputedStyle(figure);
    canvas.width = (width + 16) * scale;
    canvas.height = (height + head + 8) * scale;
    const context = canvas.getContext("2d");
    context.fillStyle = style.backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = style.color;
    context.font = `600 ${14 * scale}px ${style.fontFamily}`;
    context.fillText(figure.querySelector("h3").textContent, 8 * scale, 20 * scale);
    context.drawImage(image, 8 * scale, head * scale);
    canvas.toBlob(done, "image/png");
  };
  const text = new XMLSerializer().serializeToString(copy);
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
}

function enliven(figure) {
  const drawings = figure.querySelectorAll("svg"), csv = figure.querySelector(".csv").textContent;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);

  figure.querySelector(".as-csv").onclick = () =>
    save(figure.dataset.key + ".csv", new Blob([csv], { type: "text/csv" }));
  figure.querySelector(".as-png").onclick = () =>
    png(figure, blob => save(figure.dataset.key + ".png", blob));

  const place = (event, nodes) => {
    tip.replaceChildren(...nodes);
    tip.hidden = false;
    const box = figure.getBoundingClientRect(), at = event.clientX - box.left;
    const left = at + 16 + tip.offsetWidth > box.width ? at - 16 - tip.offsetWidth : at + 16;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, event.clientY - box.top - 12) + "px";
  };
  const line = (text, tone) => {
    const row = document.createElement("div");
    if (tone !== undefined) {
      const swatch = document.createElement("span");
      swatch.className = `swatch t${tone}`;
      row.append(swatch);
    }
    row.append(text);
    return row;
  };
  const hide = svg => {
    tip.hidden = true;
    const rule = svg.querySelector(".rule");
    if (rule) rule.style.opacity = 0;
  };
  const titled = event => {
    const title = event.target.closest("circle, .bar")?.querySelector("title");
    if (title) place(event, [line(title.textContent)]);
    return title;
  };
  for (const svg of drawings) svg.addEventListener("pointerleave", () => hide(svg));
  if (figure.dataset.series === undefined) {  // points or bars: each says what it is
    for (const svg of drawings)
      svg.addEventListener("pointermove", event => titled(event) || hide(svg));
    return;
  }

  const series = JSON.parse(figure.dataset.series);
  const rows = csv.trim().split("\n").slice(-Number(figure.dataset.count))
    .map(row => row.split(",").map(cell => cell === "" ? NaN : Number(cell)));
  const show = UNITS[figure.dataset.unit], showX = UNITS[figure.dataset.xUnit];
  const lines = row => {
    let column = 1;
    return series.flatMap(([name, tone, hasInterval]) => {
      const [value, low, high] = row.slice(column);
      column += hasInterval ? 3 : 1;
      if (Number.isNaN(value)) return [];
      const range = hasInterval && !Number.isNaN(low) ? ` (${show(low)} to ${show(high)})` : "";
      return series.length > 1 ? line(`${name}: ${show(value)}${range}`, tone)
        : line(show(value) + range);
    });
  };
  for (const svg of drawings) {
    const { x0, x1, left, right, log } = svg.dataset;
    const scaled = v => log === "1" ? Math.log10(v) : Number(v);
    const at = x => +left + (scaled(x) - scaled(x0)) / (scaled(x1) - scaled(x0)) * (right - left);
    svg.addEventListener("pointermove", event => {
      if (titled(event)) return;
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const near = rows.reduce((a, b) => Math.abs(at(b[0]) - x) < Math.abs(at(a[0]) - x) ? b : a);
      const rule = svg.querySelector(".rule");
      rule.setAttribute("x1", at(near[0]));
      rule.setAttribute("x2", at(near[0]));
      rule.style.opacity = 0.5;
      const head = document.createElement("b");
      head.textContent = `${figure.dataset.x} ${showX(near[0])}`;
      place(event, [head, ...lines(near)]);
    });
  }
}

document.querySelectorAll("figure[data-key]").forEach(enliven);

// A text that fits needs no button to open it. On a phone some sections begin closed; on paper all
// are open.
function arrange(part) {
  for (const clamp of part.querySelectorAll(".clamp")) {
    const text = clamp.querySelector(".text");
    if (text.clientHeight > 0) clamp.classList.toggle("fits", text.scrollHeight <= text.clientHeight + 1);
  }
}
arrange(document);
const folded = document.querySelectorAll("details.folded");
if (matchMedia("(max-width: 700px)").matches) for (const section of folded) section.open = false;
addEventListener("beforeprint", () => {
  for (const section of folded) section.open = true;
});
