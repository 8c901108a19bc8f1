// Offsets in a text. The app counts code points (as Python does), the browser UTF-16 units; they part where a character has two units.

/** Converts offsets of one text; `length` is its length in code points. */
export class Offsets {
  constructor(text) {
    this.text = text;
    this.wide = []; // where, in units, each character of two units begins
    for (const { index } of text.matchAll(/[\u{10000}-\u{10FFFF}]/gu)) this.wide.push(index);
    this.length = text.length - this.wide.length;
  }

  /** The unit at which code point `point` begins; cut to the text. */
  units(point) {
    const at = Math.min(Math.max(Math.trunc(point), 0), this.length);
    return at + this.count((middle) => this.wide[middle] - middle < at);
  }

  /** The code point that unit `unit` belongs to; within a character, that character. */
  points(unit) {
    const at = Math.min(Math.max(unit, 0), this.text.length);
    return at - this.count((middle) => this.wide[middle] < at);
  }

  /** How many of `wide` are below: the first place at which `isBelow(place)` is false. */
  count(isBelow) {
    let [low, high] = [0, this.wide.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBelow(middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The text between two code points. */
  quote(start, end) {
    return this.text.slice(this.units(start), this.units(end));
  }
}
