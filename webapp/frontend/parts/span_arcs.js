// Relations between spans as arcs over the text, each with its label and an arrow at its target.

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Draws relations into `holder`; `onpick(relation)` when one is clicked. */
export class SpanArcs {
  constructor(holder, colours, onpick) {
    this.holder = holder;
    this.colours = colours;
    this.onpick = onpick;
    this.svg = draw("svg", { class: "span-arcs", "aria-hidden": "true" });
    holder.append(this.svg);
  }

  /** `boundsOf(id)` is the first rectangle of a span, `selected` the relation that stands out. */
  set(relations, boundsOf, selected) {
    const arcs = relations.map((relation) => this.arc(relation, boundsOf(relation.source), boundsOf(relation.target), relation === selected));
    this.svg.replaceChildren(...arcs.filter(Boolean));
  }

  arc(relation, from, to, isSelected) {
    if (!from || !to) return null;
    const [x1, y1, x2, y2] = [from.x + from.width / 2, from.y, to.x + to.width / 2, to.y];
    const rise = Math.min(14 + Math.abs(x2 - x1) / 12, 34);
    const top = Math.min(y1, y2) - rise;
    const line = `M ${x1} ${y1} C ${x1} ${top}, ${x2} ${top}, ${x2} ${y2}`;
    const colour = this.colours.get(relation.label) ?? "gray";
    const group = draw(
      "g",
      { class: isSelected ? "arc selected" : "arc", stroke: colour, "data-relation": `${relation.source} ${relation.target}` },
      draw("path", { class: "reach", d: line }),
      draw("path", { d: line }),
      draw("path", { d: `M ${x2 - 4} ${y2 - 7} L ${x2} ${y2} L ${x2 + 4} ${y2 - 7}` }),
      draw("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 8 + (3 * top) / 4 + 3, "text-anchor": "middle" }, relation.label),
    );
    group.addEventListener("click", () => this.onpick(relation));
    return group;
  }
}
