// A line chart of the errors of the model and of persistence, as SVG.

const WIDTH = 640, HEIGHT = 200, LEFT = 48, BOTTOM = 34, TOP = 12;

/** Draw curves by name into an SVG element.
 *
 * @param {SVGElement} svg
 * @param {Object<string, number[]>} curves - "model" and "persistence".
 * @param {{now?: number, label: string}} options - A position to mark, from 1; label of the axis.
 */
export function drawChart(svg, curves, { now, label }) {
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren();
  const length = Math.max(...Object.values(curves).map((values) => values.length), 0);
  if (!length) return;
  const most = Math.max(...Object.values(curves).flat(), 1e-9);
  const x = (i) => LEFT + ((i + 0.5) / length) * (WIDTH - LEFT - 10);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
  const add = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
  };
  for (const share of [0, 0.5, 1]) {
    add("line", { class: "axis", x1: LEFT, x2: WIDTH - 10, y1: y(share * most), y2: y(share * most) });
    add("text", { x: LEFT - 6, y: y(share * most) + 4, "text-anchor": "end" }, (share * most).toPrecision(3));
  }
  const every = Math.ceil(length / 10);
  for (let i = 0; i < length; i += every) {
    add("text", { x: x(i), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, i + 1);
  }
  add("text", { x: WIDTH - 10, y: HEIGHT - 4, "text-anchor": "end" }, label);
  if (now >= 1 && now <= length) add("line", { class: "now", x1: x(now - 1), x2: x(now - 1), y1: TOP, y2: y(0) });
  Object.entries(curves).forEach(([name, values], row) => {
    add("polyline", { class: name, points: values.map((value, i) => `${x(i)},${y(value)}`).join(" ") });
    add("text", { x: LEFT + 8 + 70 * row, y: HEIGHT - 4 }, name);
    add("line", { class: name, x1: LEFT - 10 + 70 * row, x2: LEFT + 4 + 70 * row, y1: HEIGHT - 8, y2: HEIGHT - 8 });
  });
}
