// One panel per stage: the square that the vision tower saw, left-out tokens darkened.

const SIDE = 224;

/** Figures for the object `segmentation` of an answer that was asked for with `show_tokens`. */
export function panels(segmentation, bitmap) {
  return segmentation.kept_tokens.map((kept, stage) => {
    const [first, end] = segmentation.stage_layers[stage];
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent =
      `layers ${first}-${end - 1}: ${kept.length} of ${segmentation.visual_tokens}`;
    figure.append(panel(kept, segmentation.visual_tokens, bitmap), caption);
    return figure;
  });
}

/** In words, what the tokens cost. */
export function cost(segmentation) {
  const mean = segmentation.mean_visual_tokens_per_layer;
  const share = Math.round(100 * segmentation.flops_ratio);
  return (
    `Policy ${segmentation.policy}: ${+mean.toFixed(1)} image tokens per layer on average, ` +
    `${share} % of the computation of a dense prefill.`
  );
}

function panel(kept, total, bitmap) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#8a929c";
  pen.fillRect(0, 0, SIDE, SIDE);
  if (bitmap) {
    const side = Math.min(bitmap.width, bitmap.height);
    const left = Math.floor((bitmap.width - side) / 2);
    const top = Math.floor((bitmap.height - side) / 2);
    pen.drawImage(bitmap, left, top, side, side, 0, 0, SIDE, SIDE);
  }
  const columns = Math.round(Math.sqrt(total));
  const cell = SIDE / columns;
  const seen = new Set(kept);
  pen.fillStyle = "rgb(0 0 0 / 82%)";
  for (let token = 0; token < total; token++) {
    if (seen.has(token)) continue;
    pen.fillRect((token % columns) * cell, Math.floor(token / columns) * cell, cell, cell);
  }
  return canvas;
}
