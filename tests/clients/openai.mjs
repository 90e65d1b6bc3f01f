// The official JavaScript client against a server: node openai.mjs FOLDER BASE SCENARIO
// FOLDER is the unpacked npm package. What was seen goes to standard output as one JSON object.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, baseURL, scenario] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(`${folder}/index.mjs`));
const client = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: "sk-test", maxRetries: 0,
                            timeout: 30000 });
const ask = (more = {}, options = {}) => client.chat.completions.create(
    { model: "m", messages: [{ role: "user", content: "grüße 🙂" }], ...more }, options);

// The error as the client maps it.
function facts(e) {
  const classes = [];
  for (let c = e.constructor; c && c.name; c = Object.getPrototypeOf(c)) classes.push(c.name);
  return { classes, status: e.status, code: e.code, type: e.type, param: e.param,
           message: e.message, requestID: e.requestID ?? null };
}

async function collect(stream, onText = () => {}) {
  const texts = [];
  try {
    for await (const part of stream) {
      const text = part.choices[0]?.delta?.content;
      if (text) {
        texts.push(text);
        onText(text);
      }
    }
    return { texts };
  } catch (e) {
    return { texts, error: facts(e) };
  }
}

const scenarios = {
  async plain() {
    const { data, response } = await ask().withResponse();
    return { text: data.choices[0].message.content, model: data.model,
             requestID: data._request_id, version: response.headers.get("x-segue-version") };
  },
  async stream() {
    // Each text is told at once: the test lets the engine go on when it has read it.
    return collect(await ask({ stream: true }), (text) => console.log(JSON.stringify({ text })));
  },
  async abort() {
    const stream = await ask({ stream: true });
    const seen = await collect(stream, () => stream.controller.abort());
    return { ...seen, aborted: stream.controller.signal.aborted };
  },
  async abortBeforeTheAnswer() {
    const controller = new AbortController();
    const answer = ask({}, { signal: controller.signal });
    // Aborted when the test says that the engine has the request.
    for await (const line of createInterface({ input: process.stdin })) {
      if (line === "abort") break;
    }
    controller.abort();
    return answer.then(() => ({ text: "an answer" }), (e) => ({ error: facts(e) }));
  },
  async models() {
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    return { found, one: (await client.models.retrieve("m").catch((e) => facts(e))) };
  },
  async failure() {
    return ask().then(() => ({ text: "an answer" }), (e) => ({ error: facts(e) }));
  },
  async unknownModel() {
    return ask({ model: "nobody" }).then(() => ({}), (e) => ({ error: facts(e) }));
  },
  async many() {
    // As a program does it: all at once, over connections that are kept.
    const texts = [];
    for (let round = 0; round < 5; round++) {
      texts.push(...await Promise.all(Array.from({ length: 20 }, async (_, i) =>
        i % 2 ? (await collect(await ask({ stream: true }))).texts.join("")
              : (await ask()).choices[0].message.content)));
    }
    return { texts: [...new Set(texts)], n: texts.length };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
process.exit(0);
