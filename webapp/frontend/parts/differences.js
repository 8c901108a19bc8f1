// Where two texts differ, word by word, so that a reader sees it at once.

const MOST_CELLS = 4_000_000;
const LEAST_SHARED = 0.25; // below this share of common words, marking would colour nearly everything

/** Words, spaces and signs of a text; words of languages without spaces by the browser's own rules. */
export function wordsOf(text) {
  if (!Intl.Segmenter) return text.split(/(\s+)/).filter(Boolean);
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), ({ segment }) => segment);
}

/** Both texts in pieces [[words, isDifferent], ...]; nothing is marked where they share too little or are too long. */
export function differences(one, other) {
  const [a, b] = [wordsOf(one), wordsOf(other)];
  const plain = [[[one, false]], [[other, false]]];
  if (one === other || a.length * b.length > MOST_CELLS) return plain;
  const [keptA, keptB] = common(a, b);
  const shared = keptA.filter((isKept, at) => isKept && /\S/.test(a[at])).length;
  const most = Math.max(1, Math.min(a.filter((word) => /\S/.test(word)).length, b.filter((word) => /\S/.test(word)).length));
  return shared / most < LEAST_SHARED ? plain : [grouped(a, keptA), grouped(b, keptB)];
}

/** Which words of each list belong to their longest common subsequence. */
function common(a, b) {
  const width = b.length + 1;
  const length = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      length[at] = a[i] === b[j] ? length[at + width + 1] + 1 : Math.max(length[at + width], length[at + 1]);
    }
  }
  const [keptA, keptB] = [a.map(() => false), b.map(() => false)];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) keptA[i++] = keptB[j++] = true;
    else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return [keptA, keptB];
}

function grouped(words, kept) {
  const out = [];
  words.forEach((word, at) => {
    const last = out.at(-1);
    if (last && last[1] === !kept[at]) last[0] += word;
    else out.push([word, !kept[at]]);
  });
  return out;
}
