// One question with its answer: text as it comes, masks to switch on and off, time.

import { css } from "./photo.js";

export class Answer {
  /** `nextNumber` counts the masks of the page, which have one colour each. */
  constructor(question, photo, nextNumber) {
    this.photo = photo;
    this.nextNumber = nextNumber;
    this.record = { question, answer: "", masks: [] };
    this.element = element("article", "answer running");
    this.text = element("p", "text");
    this.element.append(element("p", "question", question), this.text);
  }

  write(text) {
    this.record.answer += text;
    this.text.textContent = this.record.answer;
  }

  /** The answer is whole: colours its [SEG]s and lists its masks. */
  finish(masks, segmentation, time) {
    this.element.classList.remove("running");
    this.record = { ...this.record, masks, segmentation, time };
    const numbers = masks.map(() => this.nextNumber());
    this.#colourText(numbers);
    masks.forEach((mask, i) => this.element.append(this.#row(mask, numbers[i])));
    if (!masks.length) this.element.append(element("p", "time", "no mask: no [SEG] in the answer"));
    this.element.append(element("p", "time", time));
  }

  fail(message) {
    this.element.classList.remove("running");
    this.record.error = message;
    this.element.append(element("p", "error", message));
  }

  #colourText(numbers) {
    const parts = this.record.answer.split("[SEG]");
    this.text.replaceChildren();
    parts.forEach((part, i) => {
      this.text.append(part);
      if (i === parts.length - 1) return;
      const seg = element("span", "seg", "[SEG]");
      if (i < numbers.length) seg.style.backgroundColor = css(numbers[i]);
      this.text.append(seg);
    });
  }

  #row(mask, number) {
    const drawn = this.photo.add(mask, number);
    const row = element("label", "mask");
    const box = element("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      drawn.visible = box.checked;
      this.photo.draw();
    });
    const swatch = element("span", "swatch");
    swatch.style.backgroundColor = css(number);
    const [height, width] = mask.size;
    const share = ((100 * mask.area) / (height * width)).toFixed(1);
    const figures = `${mask.area.toLocaleString("en")} pixels (${share} %), score ${mask.score.toFixed(2)}`;
    row.append(box, swatch, element("span", "", `mask ${mask.seg_index + 1}`), element("span", "", figures));
    return row;
  }
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
