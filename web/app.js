// The translate page: a text in HY-MT's prompt to POST /v1/chat/completions, the
// streamed answer shown as it comes, with the version that gave it.
//
//   idle ── submit ──▶ busy ── [DONE], error, Stop ──▶ idle
//
// `running` is the request under way, or null; only begin() and end() set it.

import { LANGUAGES, PROMPT_CHINESE, PROMPT_ENGLISH } from "./languages.js";

const WORDS = {
  en: {
    title: "Translate – Segue",
    other: "中文",
    model: "Model",
    from: "From",
    to: "To",
    auto: "Detect language",
    clear: "Clear",
    copy: "Copy",
    copied: "Copied",
    translate: "Translate",
    stop: "Stop",
    stopped: "stopped",
    swap: "Swap languages and texts",
    text: "Text to translate",
    answer: "Translation",
    placeholder: "Type or paste a text",
    characters: (n) => (n === 1 ? "1 character" : `${n} characters`),
    took: (ms) => (ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`),
    speed: (n) => `${n} tokens/s`,
    cut: "The answer was cut before its end.",
    unreachable: "The server cannot be reached.",
    refused: (status) => `The server answered with status ${status}.`,
    no_model: "The server offers no model.",
    key: "API key",
    use_key: "Use",
    key_needed: "This server needs an API key.",
    key_wrong: "The server does not know this API key.",
  },
  zh: {
    title: "翻译 – Segue",
    other: "English",
    model: "模型",
    from: "源语言",
    to: "目标语言",
    auto: "自动检测",
    clear: "清空",
    copy: "复制",
    copied: "已复制",
    translate: "翻译",
    stop: "停止",
    stopped: "已停止",
    swap: "交换语言和文本",
    text: "要翻译的文本",
    answer: "译文",
    placeholder: "输入或粘贴文本",
    characters: (n) => `${n} 个字符`,
    took: (ms) => (ms < 1000 ? `${ms.toFixed(0)} 毫秒` : `${(ms / 1000).toFixed(1)} 秒`),
    speed: (n) => `${n} 词元/秒`,
    cut: "译文在结束之前被切断。",
    unreachable: "无法连接服务器。",
    refused: (status) => `服务器返回了状态码 ${status}。`,
    no_model: "服务器没有提供模型。",
    key: "API 密钥",
    use_key: "使用",
    key_needed: "此服务器需要 API 密钥。",
    key_wrong: "服务器不认识此 API 密钥。",
  },
};

const CHINESE = ["zh", "zh-Hant", "yue"];
const MAX_TOKENS = 2048;

const $ = (id) => document.getElementById(id);

let ui = "en";
let running = null;
let target_chosen = false;

// --- what is remembered (a private window may forbid it) --------------------

function recall(key) {
  try {
    return localStorage.getItem(`segue.${key}`);
  } catch {
    return null;
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(`segue.${key}`, value);
  } catch {
    // It is a convenience only.
  }
}

// --- the API key, where one is needed: until the window is closed -----------

let key = "";

try {
  key = sessionStorage.getItem("segue.key") ?? "";
} catch {
  // Then it is asked for again.
}

function use_key(value) {
  key = value;
  try {
    sessionStorage.setItem("segue.key", value);
  } catch {
    // It holds for this page.
  }
}

// A request of ours to the server; a 401 asks for a key.
async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  $("key-form").hidden = response.status !== 401;
  if (response.status === 401) {
    $("key").focus();
    throw new Error(key ? WORDS[ui].key_wrong : WORDS[ui].key_needed);
  }
  return response;
}

// --- languages --------------------------------------------------------------

function looks_chinese(text) {
  return (
    /\p{Script=Han}/u.test(text) &&
    !/[\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u.test(text)
  );
}

function prompt(from, to, text) {
  const chinese = CHINESE.includes(to) || (from ? CHINESE.includes(from) : looks_chinese(text));
  const [, english_name, chinese_name] = LANGUAGES.find(([code]) => code === to);
  const [before, after] = (chinese ? PROMPT_CHINESE : PROMPT_ENGLISH).split("%s");
  return before + (chinese ? chinese_name : english_name) + after + text;
}

function fill_languages(select, with_auto) {
  const chosen = select.value;
  const options = LANGUAGES.map(
    ([code, english, chinese]) => new Option(ui === "zh" ? chinese : english, code),
  );
  if (with_auto) options.unshift(new Option(WORDS[ui].auto, ""));
  select.replaceChildren(...options);
  select.value = chosen;
}

function set_ui(language) {
  const words = WORDS[language];
  ui = language;
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  document.title = words.title;
  for (const e of document.querySelectorAll("[data-text]")) e.textContent = words[e.dataset.text];
  for (const e of document.querySelectorAll("[data-placeholder]"))
    e.placeholder = words[e.dataset.placeholder];
  for (const e of document.querySelectorAll("[data-label]")) {
    e.setAttribute("aria-label", words[e.dataset.label]);
    if (e.tagName === "BUTTON") e.title = words[e.dataset.label];
  }
  $("ui-language").textContent = words.other;
  $("ui-language").lang = language === "zh" ? "en" : "zh-Hans";
  fill_languages($("from"), true);
  fill_languages($("to"), false);
  show_count();
}

// Until somebody chooses a target, it is the other one of Chinese and English.
function guess_target() {
  const text = $("text").value;
  if (!target_chosen && text.trim()) $("to").value = looks_chinese(text) ? "en" : "zh";
}

// --- showing ----------------------------------------------------------------

function show_count() {
  const n = [...$("text").value].length;
  $("count").textContent = n ? WORDS[ui].characters(n) : "";
}

function show_error(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function show_stats(run, note) {
  const now = performance.now();
  const parts = [WORDS[ui].took(now - run.began)];
  const streamed = (now - run.first) / 1000;
  if (run.tokens > 1 && streamed > 0)
    parts.push(WORDS[ui].speed(((run.tokens - 1) / streamed).toFixed(0)));
  if (note) parts.push(note);
  $("stats").textContent = parts.join(" · ");
}

function show_version(version) {
  $("version").textContent = version ?? "";
  $("version").hidden = !version;
}

// --- the stream -------------------------------------------------------------

// Calls take(data) for each event of a stream, [DONE] too.
async function read_events(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) take(line.slice(5).trim());
  }
}

// The server's sentence, or ours when it has none.
async function refusal(response) {
  try {
    const { error } = await response.json();
    return error.message || WORDS[ui].refused(response.status);
  } catch {
    return WORDS[ui].refused(response.status);
  }
}

function take_piece(run, data) {
  if (data === "[DONE]") {
    run.done = true;
    return;
  }
  const event = JSON.parse(data);
  if (event.error) throw new Error(event.error.message || WORDS[ui].cut);
  if (event.usage) run.tokens = event.usage.completion_tokens ?? run.tokens;
  const piece = event.choices?.[0]?.delta?.content;
  if (!piece) return;
  if (run.tokens++ === 0) run.first = performance.now();
  $("answer").append(piece);
  $("copy").disabled = false;
  show_stats(run);
}

async function translate(run, text) {
  const model = $("model").value || (await load_models());
  if (!model) throw new Error(WORDS[ui].no_model);
  const content = prompt($("from").value, $("to").value, text);
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      model,
      stream: true,
      max_tokens: MAX_TOKENS,
      messages: [{ role: "user", content }],
    }),
    signal: run.abort.signal,
  });
  run.answered = true;
  show_version(response.headers.get("X-Segue-Version"));
  if (!response.ok) throw new Error(await refusal(response));
  await read_events(response.body, (data) => take_piece(run, data));
  if (!run.done) throw new Error(WORDS[ui].cut);
}

// --- begin, end -------------------------------------------------------------

function begin() {
  const now = performance.now();
  const run = { abort: new AbortController(), began: now, first: now, tokens: 0 };
  run.answered = run.done = false; // a head came; [DONE] came
  run.timer = setInterval(() => show_stats(run), 100);
  running = run;
  show_error("");
  show_version(null);
  $("answer").replaceChildren();
  $("answer").lang = $("to").value;
  $("answer").setAttribute("aria-busy", "true");
  $("copy").disabled = true;
  $("stop").hidden = false;
  $("go").disabled = true;
  return run;
}

function end(run, note) {
  clearInterval(run.timer);
  run.abort.abort(); // An error in the stream leaves the rest of it unread.
  running = null;
  $("answer").removeAttribute("aria-busy");
  $("stop").hidden = true;
  $("go").disabled = false;
  show_stats(run, note);
}

async function submit() {
  const text = $("text").value.trim();
  if (running || !text) {
    if (!text) $("text").focus();
    return;
  }
  const run = begin();
  let note = "";
  try {
    await translate(run, text);
  } catch (error) {
    if (run.abort.signal.aborted) note = WORDS[ui].stopped;
    else if (error instanceof TypeError)
      show_error(run.answered ? WORDS[ui].cut : WORDS[ui].unreachable);
    else show_error(error.message);
  }
  end(run, note);
}

// --- models -----------------------------------------------------------------

// Fills the list of models; the chosen one, or "" when there is none. `a@v1` is
// a pinned version of `a`, not another model.
async function load_models() {
  const response = await ask("v1/models");
  if (!response.ok) throw new Error(await refusal(response));
  const { data } = await response.json();
  const names = data.map((m) => m.id).filter((id) => !id.includes("@"));
  $("model").replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(recall("model"))) $("model").value = recall("model");
  $("model-box").hidden = names.length < 2;
  return $("model").value;
}

function begin_models() {
  show_error("");
  load_models().catch((error) =>
    show_error(error instanceof TypeError ? WORDS[ui].unreachable : error.message),
  );
}

// --- what people do ---------------------------------------------------------

function swap() {
  const from = $("from").value || (looks_chinese($("text").value) ? "zh" : "en");
  const answer = $("answer").textContent;
  if (running) return;
  $("from").value = $("to").value;
  $("to").value = from;
  target_chosen = true;
  if (answer) {
    $("answer").textContent = $("text").value;
    $("text").value = answer;
    show_version(null);
    $("stats").textContent = "";
  }
  show_count();
  $("text").focus();
}

// Without a secure context (http on another machine) there is no clipboard.
async function copy() {
  const text = $("answer").textContent;
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else {
    getSelection().selectAllChildren($("answer"));
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  $("copy").textContent = WORDS[ui].copied;
  setTimeout(() => ($("copy").textContent = WORDS[ui].copy), 1500);
}

function clear() {
  $("text").value = "";
  show_count();
  $("text").focus();
}

function start() {
  const known = recall("ui") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
  const to = recall("to");
  set_ui(known === "zh" ? "zh" : "en");
  target_chosen = LANGUAGES.some(([code]) => code === to);
  $("from").value = "";
  $("to").value = target_chosen ? to : ui === "zh" ? "en" : "zh";
  if (/Mac|iPhone|iPad/.test(navigator.platform)) $("modifier").textContent = "⌘";

  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("text").addEventListener("input", () => {
    show_count();
    guess_target();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
    if (event.key === "Escape") running?.abort.abort();
  });
  $("stop").addEventListener("click", () => running?.abort.abort());
  $("swap").addEventListener("click", swap);
  $("copy").addEventListener("click", copy);
  $("clear").addEventListener("click", clear);
  $("to").addEventListener("change", () => {
    target_chosen = true;
    remember("to", $("to").value);
  });
  $("model").addEventListener("change", () => remember("model", $("model").value));
  $("ui-language").addEventListener("click", () => {
    set_ui(ui === "zh" ? "en" : "zh");
    remember("ui", ui);
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    use_key($("key").value.trim());
    $("key").value = "";
    begin_models();
  });
  begin_models();
}

start();
