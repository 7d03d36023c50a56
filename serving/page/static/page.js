// The page: an image, questions about it, answers with masks.

import { Answer } from "./answer.js";
import { Photo } from "./photo.js";
import { Refusal, chat, modelName, segment } from "./server.js";
import { cost, panels } from "./tokens.js";

const $ = (id) => document.getElementById(id);
const photo = new Photo($("photo"));
const nothing = { file: null, answers: [], masks: 0 };
let state = { ...nothing };
let running = null;

const nextNumber = () => state.masks++;
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(2)} s`;

async function showModel() {
  try {
    $("model").textContent = await modelName($("key").value);
    wantKey(false);
  } catch (error) {
    $("model").textContent = error.status === 401 ? "API key needed" : "no server";
    wantKey(error.status === 401);
  }
}

function wantKey(wanted) {
  $("key").classList.toggle("wanted", wanted);
  if (wanted) $("key").placeholder = "needed";
}

async function open(file) {
  if (file.type && !file.type.startsWith("image/")) {
    complain(`${file.name} is no image (${file.type}).`);
    return;
  }
  running?.abort();
  state = { ...nothing, answers: [], file };
  const shown = await photo.open(file);
  $("photo").hidden = false;
  $("invitation").hidden = true;
  $("drop").classList.add("full");
  $("about").textContent = shown
    ? `${file.name}, ${photo.bitmap.width} × ${photo.bitmap.height} pixels`
    : `${file.name}: this browser cannot show the format; masks are drawn on grey`;
  clearAnswers();
  $("send").disabled = false;
}

function clearAnswers() {
  state.answers = [];
  state.masks = 0;
  photo.clear();
  $("answers").replaceChildren();
  complain("");
  $("keep").hidden = $("tokens").hidden = true;
}

function complain(message) {
  $("trouble").textContent = message;
  $("trouble").hidden = !message;
}

function words(error) {
  if (error.name === "AbortError") return "stopped";
  if (error instanceof Refusal) return error.message;
  return `The server cannot be reached (${error.message}).`;
}

function addAnswers(questions) {
  const answers = questions.map((question) => new Answer(question, photo, nextNumber));
  state.answers.push(...answers);
  $("answers").prepend(...answers.map((answer) => answer.element));
  return answers;
}

function showTokens(segmentation) {
  $("tokens").hidden = false;
  $("panels").replaceChildren(...panels(segmentation, photo.bitmap));
  $("cost").textContent = cost(segmentation);
}

async function askOne(question, mode, signal) {
  const began = performance.now();
  const [answer] = addAnswers([question]);
  let first = "";
  try {
    for await (const chunk of chat($("key").value, state.file, question, mode, signal)) {
      const [choice] = chunk.choices;
      if (choice?.delta.content) {
        first ||= seconds(began);
        answer.write(choice.delta.content);
      }
      if (choice?.delta.masks) {
        const masks = choice.delta.masks;
        answer.finish(masks, chunk.segmentation, `first text after ${first}, all after ${seconds(began)}`);
        // Which tokens a stage ran on comes with the masks.
        if (masks.length && chunk.segmentation) showTokens(chunk.segmentation);
      }
    }
  } catch (error) {
    answer.fail(words(error));
    throw error;
  }
}

async function askMany(questions, mode, signal) {
  const began = performance.now();
  const answers = addAnswers(questions);
  try {
    const reply = await segment($("key").value, state.file, questions, mode, signal);
    const time = `${questions.length} questions in one call: ${seconds(began)}`;
    reply.results.forEach((result, i) => {
      if (result.error) {
        answers[i].fail(result.error.message);
        return;
      }
      answers[i].write(result.answer);
      answers[i].finish(result.masks, result.segmentation, time);
      if (result.masks.length && result.segmentation) showTokens(result.segmentation);
    });
  } catch (error) {
    answers.forEach((answer) => answer.fail(words(error)));
    throw error;
  }
}

async function ask() {
  const questions = $("questions").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!questions.length || !state.file) return;
  const mode = document.querySelector("input[name=mode]:checked").value;
  running = new AbortController();
  $("send").hidden = true;
  $("stop").hidden = false;
  complain("");
  try {
    if (questions.length === 1) await askOne(questions[0], mode, running.signal);
    else await askMany(questions, mode, running.signal);
    wantKey(false);
  } catch (error) {
    if (error.status === 401) wantKey(true);
    if (error.name !== "AbortError" && !(error instanceof Refusal)) console.warn(error);
  } finally {
    $("send").hidden = false;
    $("stop").hidden = true;
    $("keep").hidden = !state.answers.length;
  }
}

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("questions").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", clearAnswers);
$("key").addEventListener("change", showModel);
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  showModel();
});
$("file").addEventListener("change", () => $("file").files[0] && open($("file").files[0]));
$("picture").addEventListener("click", () => $("photo").toBlob((blob) => save("masks.png", blob)));
$("json").addEventListener("click", () => {
  const records = state.answers.map((answer) => answer.record);
  save("answers.json", new Blob([JSON.stringify(records, null, 1)], { type: "application/json" }));
});
$("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file);
});

showModel();
