// The server's routes, relative to /v1/segment/ui, so that a proxy may put a prefix before them.

const SEGMENT = "../segment";
const CHAT = "../chat/completions";
const MODELS = "../models";

/** What the server says when it refuses; `status` is the HTTP status. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Name of the served model. */
export async function modelName(key) {
  const answer = await call(MODELS, key, {});
  return (await answer.json()).data[0].id;
}

/** All questions in one call; the answer of /v1/segment. */
export async function segment(key, file, questions, mode, signal) {
  const form = new FormData();
  form.append("image", file, "image");
  questions.forEach((question) => form.append("questions", question));
  form.append("mode", mode);
  form.append("show_tokens", "true");
  const answer = await call(SEGMENT, key, { method: "POST", body: form, signal });
  return answer.json();
}

/** One question, answered as it is written; yields the chunks of the chat completion. */
export async function* chat(key, file, question, mode, signal) {
  const image = { type: "image_url", image_url: { url: await dataUrl(file) } };
  const body = {
    messages: [{ role: "user", content: [image, { type: "text", text: question }] }],
    temperature: 0,
    stream: true,
    segmentation: { mode, show_tokens: true },
  };
  const answer = await call(CHAT, key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const event of events(answer.body)) {
    if (event === "[DONE]") return;
    const chunk = JSON.parse(event);
    if (chunk.error) throw new Refusal(chunk.error.code, chunk.error.message);
    yield chunk;
  }
}

async function call(path, key, options) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers, credentials: "omit" });
  if (answer.ok) return answer;
  throw new Refusal(answer.status, reason(answer.status, await answer.text()));
}

function reason(status, text) {
  if (status === 401) return "The server wants an API key, and this one is not it.";
  try {
    const { error } = JSON.parse(text);
    return error.message ?? String(error);
  } catch {
    return text.slice(0, 300) || `The server answered with status ${status}.`;
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      // Lines that start otherwise are comments that keep the connection open.
      if (part.startsWith("data: ")) yield part.slice(6);
    }
  }
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
