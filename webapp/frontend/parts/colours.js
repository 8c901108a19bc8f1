// The colour of each label, the same wherever labels have one.
import { COLOUR_OF } from "./marks.js";

/** A colour for each of `labels`: Map label -> CSS colour. */
export function coloursOf(labels) {
  return new Map(labels.map((label, at) => [label, COLOUR_OF[at % COLOUR_OF.length]]));
}
