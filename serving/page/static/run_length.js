// COCO's compressed run-length encoding.

/** Lengths of the runs, outside first, column by column. */
export function runs(counts) {
  const found = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << shift;
      shift += 5;
    } while (code & 0x20);
    if (code & 0x10) value |= -1 << shift;
    // From the fourth on, a length is the difference to the one two before.
    found.push(found.length > 2 ? value + found[found.length - 2] : value);
  }
  return found;
}

/** The mask as bytes 0 or 1, row by row; `size` is [height, width]. */
export function decode(counts, [height, width]) {
  const mask = new Uint8Array(height * width);
  let pixel = 0;
  runs(counts).forEach((length, number) => {
    if (number % 2) {
      for (let i = pixel; i < pixel + length; i++) {
        mask[(i % height) * width + Math.floor(i / height)] = 1;
      }
    }
    pixel += length;
  });
  return mask;
}
