// The photo on its canvas, and the masks over it.

import { decode } from "./run_length.js";

// Okabe and Ito's colours, told apart by colour-blind readers too.
const COLOURS = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
];
const LONGEST = 2048; // pixels drawn along the longer side

export const colour = (number) => COLOURS[number % COLOURS.length];
export const css = (number) => `rgb(${colour(number).join(" ")})`;

export class Photo {
  constructor(canvas) {
    this.canvas = canvas;
    this.bitmap = null;
    this.masks = [];
  }

  /** Shows an image file; false where the browser cannot read its format, as with TIFF. */
  async open(file) {
    this.masks = [];
    try {
      this.bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
      this.#resize(this.bitmap.height, this.bitmap.width);
    } catch {
      this.bitmap = null;
      this.#resize(300, 400);
    }
    this.draw();
    return this.bitmap !== null;
  }

  /** Adds a mask of the server's; it is drawn when its `visible` is true. */
  add(mask, number) {
    const [height, width] = mask.size;
    if (!this.bitmap && !this.masks.length) this.#resize(height, width);
    const drawn = { visible: true, layer: this.#layer(mask, colour(number)) };
    this.masks.push(drawn);
    this.draw();
    return drawn;
  }

  clear() {
    this.masks = [];
    this.draw();
  }

  draw() {
    const { width, height } = this.canvas;
    const pen = this.canvas.getContext("2d");
    pen.fillStyle = "#8a929c";
    pen.fillRect(0, 0, width, height);
    if (this.bitmap) pen.drawImage(this.bitmap, 0, 0, width, height);
    for (const mask of this.masks) if (mask.visible) pen.drawImage(mask.layer, 0, 0);
  }

  #resize(height, width) {
    const scale = Math.min(1, LONGEST / Math.max(height, width));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
  }

  #layer(mask, [red, green, blue]) {
    const [rows, columns] = mask.size;
    const pixels = decode(mask.counts, mask.size);
    const { width, height } = this.canvas;
    const inside = (x, y) =>
      x >= 0 && y >= 0 && x < width && y < height &&
      pixels[Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width)];
    // About two pixels on the screen, however large the photo is.
    const edge = Math.max(1, Math.round(Math.max(width, height) / 450));
    const layer = new OffscreenCanvas(width, height);
    const pen = layer.getContext("2d");
    const image = pen.createImageData(width, height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!inside(x, y)) continue;
        const within =
          inside(x - edge, y) && inside(x + edge, y) && inside(x, y - edge) && inside(x, y + edge);
        image.data.set([red, green, blue, within ? 120 : 255], 4 * (y * width + x));
      }
    }
    pen.putImageData(image, 0, 0);
    return layer;
  }
}
