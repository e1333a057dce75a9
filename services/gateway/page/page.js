// The page's one script: asks /v1/cluster and /v1/requests each second while the page is seen, and /v1/jobs as often while one is in
// work, shows what they say, and runs the playground. What comes from the server becomes text nodes, never markup.
"use strict";

const POLL_MS = 1000, ANSWER_MS_MAX = 5000;
const JOBS_SHOWN = 20, IDLE_JOBS_EVERY = 2;  // polls between two looks at jobs none of which is in work
const IN_WORK = ["waiting", "prefill", "decode"];
const KINDS = { completions: "text", chat: "chat", messages: "message", responses: "response", job: "job" };
const STAGES = {  // in the order in which they happen
  tokenize: "making tokens of the text",
  queue: "waiting behind other requests",
  plan: "planning the cuts",
  dispatch: "the way to the workers and back",
  prefill_compute: "computing on the last rank",
  kv_wait: "the last rank's wait for K/V",
  sample: "choosing the token",
  respond: "writing the answer",
  other: "what no stage explains",
};

const $ = (id) => document.getElementById(id);
let key = sessionStorage.getItem("runahead-key") ?? "";
let requests = [];  // with jobs among them, in the same words
let jobs = [], jobsAsked = 0;
let chosen = null, chosenByHand = false;
let polling = false, timer = null, lastSeen = null;

// ---- text ----

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Builds `node` anew only when what it shows has changed: focus, selection and movement stay.
function rebuild(node, shows, build) {
  const shown = JSON.stringify(shows);
  if (node.shown === shown) return;
  node.shown = shown;
  node.replaceChildren(...build());
}

const count = (number) => Number(number).toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

const unit = (number, name) => `${number}\u00a0${name}`;  // no line ends between them

function time(seconds) {
  if (seconds >= 9.995) return unit(seconds.toFixed(1), "s");
  if (seconds >= 0.9995) return unit(seconds.toFixed(2), "s");
  const ms = seconds * 1e3;
  return unit(ms >= 9.95 || ms < 0.05 ? ms.toFixed(0) : ms.toFixed(1), "ms");
}

function bytes(number) {
  for (const [name, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
    if (number >= size) return unit((number / size).toFixed(number >= 10 * size ? 0 : 1), name);
  return unit(number, "B");
}

const percent = (part, whole) => unit(whole > 0 ? Math.round((part / whole) * 100) : 0, "%");

// ---- asking ----

async function ask(path, options) {
  const headers = { ...options?.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, {
    signal: AbortSignal.timeout(ANSWER_MS_MAX), ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const error = new Error(body?.error?.message ?? `the service answered ${response.status}`);
  error.status = response.status;
  throw error;
}

const askJson = (path, options) => ask(path, options).then((response) => response.json());

function notice(text, bad) {
  const node = $("notice");
  setText(node, text ?? "");
  node.hidden = !text;
  node.classList.toggle("bad", Boolean(bad));
}

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  const used = key;
  try {
    const [cluster, list] = await Promise.all([askJson("v1/cluster"), askJson("v1/requests"), askJobs()]);
    if (!lastSeen) askOnce();
    lastSeen = new Date();
    const asked = new Set(list.data.map((request) => request.id));  // a response that was waited for is a job, too
    requests = [...list.data, ...jobs.filter((job) => !asked.has(job.id)).map(asRequest)].sort((one, other) => other.created_at - one.created_at);
    $("main").classList.remove("stale");
    notice(null);
    showCluster(cluster);
    showRequests();
    showReport();
  } catch (error) {
    showFailure(error, used);
  }
  polling = false;
  timer = document.hidden ? null : setTimeout(poll, used === key ? POLL_MS : 0);
}

// What does not change while the process runs.
async function askOnce() {
  const [models, version] = await Promise.all([askJson("v1/models"), askJson("version")]).catch(() => []);
  if (!models) return;
  setText($("model"), models.data.map((model) => model.id).join(", "));
  setText($("version"), `· Runahead ${version.version}, ${version.revision}`);
}

function showFailure(error, used) {
  if (error.status === 401) {
    setState("bad", "no access");
    notice(used ? "The service does not accept this API key: correct it above."
                : "The service needs an API key: type it into the field above, and press Enter.", true);
    $("key").setAttribute("aria-invalid", "true");
    return;
  }
  setState("bad", error.status ? "error" : "no answer");
  const what = error.status ? `The service has a problem: ${error.message}.` : "The service does not answer.";
  const since = lastSeen ? ` What you see is of ${lastSeen.toLocaleTimeString()}.` : "";
  notice(`${what}${since} The page asks again each second.`, true);
  $("main").classList.toggle("stale", lastSeen !== null);
}

function setState(kind, words) {
  const node = $("state");
  node.className = kind;
  setText(node.lastElementChild, words);
}

// ---- jobs ----

const jobParts = new Map();  // id: {prefill, runahead}, of jobs that were chosen: lists do not have it
let watched = null;          // {id, controller}: the job whose events are read

async function askJobs() {
  if (jobsAsked++ % IDLE_JOBS_EVERY !== 0 && !jobs.some((job) => ["queued", "running"].includes(job.status))) return;
  const list = askJson(`v1/jobs?limit=${JOBS_SHOWN}`);
  jobs = (await list.catch((error) => (error.status === 400 ? { data: [] } : Promise.reject(error)))).data;  // 400: keeps none
  for (const id of jobParts.keys()) if (!jobs.some((job) => job.id === id)) jobParts.delete(id);
}

// A job in the words of /v1/requests.
function asRequest(job) {
  const parts = jobParts.get(job.id);
  const prefilled = job.completion_tokens > 0 || job.prefill_fraction >= 1;
  const status = { queued: "waiting", running: prefilled ? "decode" : "prefill" }[job.status] ?? job.status;
  return { ...job, endpoint: "job", status, prefill: { fraction: job.prefill_fraction, workers: parts?.prefill ?? [] },
           runahead: parts?.runahead, elapsed_seconds: Math.max(0, (job.ended_at ?? Date.now() / 1000) - job.created_at) };
}

// What only the job itself says: how far each rank is while it runs, and its report when it has ended.
async function watchJob(request) {
  const id = request?.endpoint === "job" ? request.id : null;
  const works = id && IN_WORK.includes(request.status);
  if (watched && (watched.id !== id || !works)) {
    watched.controller.abort();
    watched = null;
  }
  if (!id || watched || jobParts.get(id)?.runahead !== undefined) return;
  const own = (watched = { id, controller: new AbortController() });
  const path = `v1/jobs/${encodeURIComponent(id)}`;
  try {
    if (works) await readProgress(id, await ask(`${path}/events`, { signal: own.controller.signal }));
    else jobParts.set(id, { runahead: (await askJson(path)).result?.usage?.runahead ?? null });
  } catch {}  // the next poll says what is wrong
  if (watched === own) watched = null;
  if (!own.controller.signal.aborted) poll();
}

async function readProgress(id, response) {
  for await (const { name, data } of eventsOf(response)) {
    if (name !== "progress") continue;
    jobParts.set(id, { prefill: JSON.parse(data).workers });
    const request = requests.find((each) => each.id === id);
    if (request) Object.assign(request.prefill, JSON.parse(data));
    showReport();
  }
}

// ---- the cluster ----

const kindOfWorker = (state) =>
  state === "ready" ? "good" : state === "waiting" || state === "draining" ? "warn" : "bad";

function showCluster(cluster) {
  $("key").removeAttribute("aria-invalid");
  const ready = (role) => cluster.workers.filter((worker) => worker.role === role && worker.state === "ready").length;
  const prefill = ready("prefill"), decode = ready("decode");
  if (cluster.draining) setState("warn", "draining: takes no new requests");
  else if (prefill && decode) setState("good", "ready");
  else setState("bad", prefill ? "not ready: no decode worker" : "not ready: no prefill worker");
  const queued = cluster.waiting ? ` with ${plural(cluster.queued_prompt_tokens, "prompt token")}` : "";
  setText($("cluster-words"), `${plural(prefill, "prefill worker")} and ${plural(decode, "decode worker")} ready; ` +
    `${plural(cluster.running, "request")} in work, ${count(cluster.waiting)} waiting${queued}. ` +
    `Compute ${cluster.compute || "not agreed yet"}, context of ${count(cluster.context_len)} tokens.`);
  const report = requests.find((request) => request.runahead?.workers.length > 1)?.runahead;
  const busy = requests.some((request) => request.status === "prefill");
  const chain = inChainOrder(cluster.workers, report);
  rebuild($("chain"), [cluster.running, chain, report?.workers, busy], () => [
    element("li", {}, gatewayNode(cluster)),
    ...chain.map((worker, place) => element("li", {}, linkInto(worker, place, report, busy), workerNode(worker))),
  ]);
}

// As in the last chain of several ranks; those that had no part in it behind, decode workers last.
function inChainOrder(workers, report) {
  const place = (worker) => {
    const rank = report?.workers.findIndex((each) => each.worker === worker.name) ?? -1;
    return (worker.role === "decode" ? 2e6 : 0) + (rank < 0 ? 1e6 : rank);
  };
  return [...workers].sort((left, right) => place(left) - place(right));
}

function gatewayNode(cluster) {
  return element("div", { class: "node good" }, element("b", {}, "gateway"), element("p", { class: "quiet" }, "and coordinator"),
                 element("p", {}, `${count(cluster.running)} in work`));
}

// What the last chain sent to this worker: its rank's predecessor did, and the last rank to the decode worker.
function sentTo(worker, report) {
  if (!report) return null;
  if (worker.role === "decode") return report.workers.at(-1).kv_sent_bytes;
  const rank = report.workers.findIndex((each) => each.worker === worker.name);
  return rank > 0 ? report.workers[rank - 1].kv_sent_bytes : null;
}

function linkInto(worker, place, report, busy) {
  const isPrompt = place === 0 && worker.role !== "decode";
  const speed = worker.link_bytes_per_second;
  const sent = sentTo(worker, report);
  const words = isPrompt ? "prompt" : speed ? `${bytes(speed)}/s` : "speed not measured";
  const link = element("div", { class: busy ? "link busy" : "link" }, words, element("i", { "aria-hidden": "true" }));
  if (!isPrompt && sent) link.append(`K/V ${bytes(sent)}`, element("span", { class: "hidden" }, " in the last chain"));
  return link;
}

function workerNode(worker) {
  const kind = kindOfWorker(worker.state);
  const used = worker.pages_total - worker.pages_free;
  const meter = element("div", { class: "meter", "aria-hidden": "true" }, element("div"));
  meter.firstChild.style.width = `${worker.pages_total ? (used / worker.pages_total) * 100 : 0}%`;
  const speed = worker.tokens_per_second ? `${count(Math.round(worker.tokens_per_second))} tokens/s` : "speed not measured";
  return element("div", { class: `node ${kind}` },
    element("b", {}, worker.name), element("span", { class: "quiet" }, ` ${worker.role}`),
    element("p", {}, element("span", { class: `dot ${kind}` }), `${worker.state}, ${count(worker.running)} in work`),
    meter,
    element("p", { class: "quiet" }, `${count(used)} of ${count(worker.pages_total)} pages in use`),
    element("p", { class: "quiet" }, `${worker.device}, ${worker.transport}` + (worker.role === "prefill" ? `, ${speed}` : "")));
}

// ---- the table of requests ----

const rows = new Map();  // id: {row, cells..}

function showRequests() {
  const body = $("requests").tBodies[0];
  for (const [id, { row }] of rows)
    if (!requests.some((request) => request.id === id)) {
      row.remove();
      rows.delete(id);
    }
  requests.forEach((request, place) => {
    if (!rows.has(request.id)) rows.set(request.id, newRow(request));
    const parts = rows.get(request.id);
    if (body.children[place] !== parts.row) body.insertBefore(parts.row, body.children[place] ?? null);
    fillRow(parts, request);
  });
  $("requests").hidden = requests.length === 0;
  setText($("requests-empty"), "No request yet. Send one from the playground.");
  $("requests-empty").hidden = requests.length > 0;
}

function newRow(request) {
  const choose = element("button", { class: "row", type: "button", title: request.id },
                         `${KINDS[request.endpoint] ?? request.endpoint} ${request.id.slice(-6)}`);
  choose.addEventListener("click", () => {
    chosen = request.id;
    chosenByHand = true;
    showRequests();
    showReport();
  });
  const cell = (name) => element("td", name ? { class: name } : {});
  const parts = { choose, words: element("span"), dot: element("span", { class: "dot" }),
    meter: element("div", { class: "meter", "aria-hidden": "true" }, element("div")), prompt: cell("number"),
    answer: cell("number wide"), ttft: cell("number"), predicted: cell("number wide"), elapsed: cell("number wide"),
    action: cell() };
  parts.row = element("tr", {}, element("td", {}, choose),
                      element("td", { class: "status" }, parts.dot, parts.words, parts.meter), parts.prompt, parts.answer,
                      parts.ttft, parts.predicted, parts.elapsed, parts.action);
  return parts;
}

function fillRow(parts, request) {
  const works = IN_WORK.includes(request.status);
  const filling = request.status === "prefill";
  const ttft = request.runahead?.ttft_seconds ?? request.first_token_seconds;
  const predicted = request.runahead?.plan.predicted_ttft_seconds;
  const kind = works ? "warn" : request.status === "succeeded" ? "good" : request.status === "failed" ? "bad" : "";
  parts.dot.className = `dot ${kind}`;
  setText(parts.words, request.status + (filling ? ` ${percent(request.prefill.fraction, 1)}` : ""));
  parts.meter.hidden = !filling;
  parts.meter.firstChild.style.width = `${request.prefill.fraction * 100}%`;
  setText(parts.prompt, count(request.prompt_tokens));
  setText(parts.answer, count(request.completion_tokens));
  setText(parts.ttft, ttft == null ? "–" : time(ttft));
  setText(parts.predicted, predicted ? time(predicted) : "–");
  setText(parts.elapsed, time(request.elapsed_seconds));
  parts.row.classList.toggle("chosen", request.id === chosen);
  parts.choose.setAttribute("aria-pressed", String(request.id === chosen));
  if (works === Boolean(parts.action.firstChild)) return;
  const focused = parts.action.contains(document.activeElement);
  parts.action.replaceChildren(...(works ? [cancelButton(request)] : []));
  if (focused) parts.choose.focus();
}

function cancelButton(request) {
  const button = element("button", { class: "cancel", type: "button", "aria-label": `Cancel ${request.id}` }, "Cancel");
  button.addEventListener("click", async () => {
    button.setAttribute("aria-disabled", "true");
    try {
      const list = request.endpoint === "job" ? "jobs" : "requests";
      const after = await askJson(`v1/${list}/${encodeURIComponent(request.id)}`, { method: "DELETE" });
      setText($("said"), `${request.id}: ${after.status}`);
    } catch (error) {
      setText($("said"), `${request.id} could not be cancelled: ${error.message}`);
      button.removeAttribute("aria-disabled");
    }
    poll();
  });
  return button;
}

// ---- where the time went ----

function showReport() {
  if (!chosenByHand || !requests.some((request) => request.id === chosen)) {
    chosenByHand = false;
    const newest = requests.find((request) => request.runahead) ?? requests[0];
    if (newest && newest.id !== chosen) {
      chosen = newest.id;
      showRequests();
    }
  }
  const request = requests.find((each) => each.id === chosen);
  watchJob(request);
  if (!request) return;
  setText($("why"), `${request.id}: ${whySentence(request)}`);
  const shows = [request.id, request.status, request.runahead, request.runahead ? null : request.prefill];
  rebuild($("report"), shows, () => (request.runahead ? reportNodes(request) : progressNodes(request)));
  $("report").hidden = false;
}

// Follows the wait upstream: a rank that waited long for K/V was held up by the one before it.
function criticalPath(workers) {
  const path = [workers.length - 1];
  for (let rank = path[0]; rank > 0; path.unshift(--rank)) {
    const { compute_seconds, kv_wait_seconds } = workers[rank];
    if (kv_wait_seconds < 0.1 * (compute_seconds + kv_wait_seconds)) break;
  }
  return path;
}

const nameOf = (worker) => `rank ${worker.rank} (${worker.worker})`;

function reasonOf(stage, seconds, report) {
  const took = `${time(seconds)} (${percent(seconds, report.ttft_seconds)})`;
  const workers = report.workers, last = workers.at(-1);
  const tokens = (worker) => plural(worker.end - worker.begin, "token");
  if (stage === "queue") return `${took} of it waiting behind other requests`;
  if (stage === "prefill_compute" && workers.length === 1)
    return `${took} of it computing ${tokens(last)} on one rank (${last.worker})`;
  if (stage === "prefill_compute") return `${took} of it computing ${tokens(last)} on the last one, ${nameOf(last)}`;
  if (stage === "kv_wait" && workers.length > 1) {
    const cause = workers[criticalPath(workers)[0]];
    const link = cause.kv_wire_seconds > cause.compute_seconds ? `sent ${bytes(cause.kv_sent_bytes)} over a slow link`
                                                               : `computed ${time(cause.compute_seconds)}`;
    return `${took} of it waiting for K/V of ${nameOf(cause)}, which ${link}`;
  }
  return `${took} of it ${STAGES[stage] ?? stage}`;
}

// One sentence, made of the numbers alone.
function whySentence(request) {
  const report = request.runahead;
  if (IN_WORK.includes(request.status) && request.first_token_seconds != null)
    return `its first token came after ${time(request.first_token_seconds)}; where that went is known when it ends.`;
  if (IN_WORK.includes(request.status)) return `${plural(request.prompt_tokens, "token")}, no first token yet.`;
  if (!report?.ttft_seconds) return `${request.status}${request.error ? `: ${request.error.message}` : ""}.`;
  const [stage, seconds] = Object.entries(report.stages).reduce((most, each) => (each[1] > most[1] ? each : most));
  let text = `${time(report.ttft_seconds)} to the first token of ${plural(request.prompt_tokens, "token")} on ` +
             `${plural(report.workers.length, "rank")}, ${reasonOf(stage, seconds, report)}`;
  const predicted = report.plan.predicted_ttft_seconds;
  if (predicted > 0) {
    const off = Math.round((report.ttft_seconds / predicted - 1) * 100);
    text += off === 0 ? `, as predicted` : `; ${unit(Math.abs(off), "%")} ${off > 0 ? "more" : "less"} than the predicted ${time(predicted)}`;
  }
  const queued = report.stages.queue;
  if (stage !== "queue" && queued > 0.05 * report.ttft_seconds) text += `; ${time(queued)} were spent in the queue`;
  if (request.cached_tokens) text += `; ${plural(request.cached_tokens, "token")} came from the prefix cache`;
  if (report.attempts > 1) text += `; it took ${report.attempts} attempts, and the lost ones count as queue`;
  return `${text}.`;
}

function piece(begin, length, scale, stage, title) {
  const node = element("div", { title });
  node.style.left = `${(begin / scale) * 100}%`;
  node.style.width = `${(length / scale) * 100}%`;
  node.style.background = `var(--${stage})`;
  return node;
}

function mark(kind, at, scale, title) {
  const node = element("div", { class: kind, title });
  node.style.left = `${(at / scale) * 100}%`;
  return node;
}

function swatch(stage, words) {
  const node = element("span", { class: ["mark", "end"].includes(stage) ? `swatch ${stage}` : "swatch", "aria-hidden": "true" });
  if (!["mark", "end"].includes(stage)) node.style.background = `var(--${stage})`;
  return element("li", {}, node, words);
}

function reportNodes(request) {
  const report = request.runahead;
  const predicted = report.plan.predicted_ttft_seconds;
  const scale = 1.02 * Math.max(report.ttft_seconds, predicted);
  const marks = () => [mark("end", report.ttft_seconds, scale, `first token: ${time(report.ttft_seconds)}`),
    ...(predicted > 0 ? [mark("mark", predicted, scale, `predicted: ${time(predicted)}`)] : [])];
  const bar = element("div", { class: "time", "aria-hidden": "true" });
  const legend = element("ul", { class: "legend" });
  let begin = 0;
  for (const [stage, words] of Object.entries(STAGES)) {
    const seconds = Math.max(0, report.stages[stage] ?? 0);
    bar.append(piece(begin, seconds, scale, stage, `${words}: ${time(seconds)}`));
    legend.append(swatch(stage, `${stage.replace("_", " ")} ${time(seconds)}, ${percent(seconds, report.ttft_seconds)}`));
    begin += seconds;
  }
  bar.append(...marks());
  legend.append(swatch("end", `first token ${time(report.ttft_seconds)}`));
  if (predicted > 0) legend.append(swatch("mark", `predicted ${time(predicted)}`));
  const whole = element("div", { class: "rank" }, element("b", {}, "first token"), bar);
  return [element("h3", {}, "The stages, whose sum is the time to first token"), whole, legend,
          element("h3", {}, "Each rank: what it computed, and waited for K/V"), ...rankNodes(report, scale, marks), planNode(report)];
}

// Reports have sums: that a rank computes before it waits is how they are drawn, not how it was.
function rankNodes(report, scale, marks) {
  const before = ["tokenize", "queue", "plan", "dispatch"].reduce((sum, stage) => sum + (report.stages[stage] ?? 0), 0);
  const critical = criticalPath(report.workers);
  return report.workers.map((worker, rank) => {
    const { compute_seconds: compute, kv_wait_seconds: wait } = worker;
    const bar = element("div", { class: "time", "aria-hidden": "true" });
    bar.append(piece(before, compute, scale, "prefill_compute", `compute: ${time(compute)}`),
               piece(before + compute, wait, scale, "kv_wait", `wait for K/V: ${time(wait)}`), ...marks());
    const sent = worker.kv_sent_bytes ? `, sent ${bytes(worker.kv_sent_bytes)}` : "";
    const decides = critical.includes(rank);
    return element("div", { class: decides ? "rank critical" : "rank" }, element("b", {}, nameOf(worker)), bar,
      element("div", { class: "small quiet" }, `tokens ${count(worker.begin)}–${count(worker.end)}`),
      element("div", { class: "small quiet" },
              `compute ${time(compute)}, wait ${time(wait)}${sent}${decides ? "; on the critical path" : ""}`));
  });
}

function planNode(report) {
  const cuts = report.plan.cuts.length ? `cut at ${report.plan.cuts.map(count).join(", ")}` : "not cut";
  return element("p", { class: "small quiet" }, `Plan ${report.plan.strategy}, ${cuts}; compute ${report.compute}; ` +
    `K/V by ${report.transport || "no transport"}; ${plural(report.attempts, "attempt")}.`);
}

function progressNodes(request) {
  return request.prefill.workers.map(({ rank, fraction }) => {
    const bar = element("div", { class: "time", "aria-hidden": "true" }, piece(0, fraction, 1, "prefill_compute", ""));
    return element("div", { class: "rank" }, element("div", {}, element("b", {}, `rank ${rank}`), ` ${percent(fraction, 1)}`), bar);
  });
}

// ---- the playground ----

let running = null;  // AbortController of the request in work

function playBody() {
  const text = $("prompt").value;
  const body = { max_tokens: Number($("max-tokens").value), stream: true, stream_options: { include_usage: true },
                 return_progress: true, runahead: { strategy: $("strategy").value } };
  if ($("temperature").value !== "") body.temperature = Number($("temperature").value);
  if ($("kind").value === "chat") body.messages = [{ role: "user", content: text }];
  else body.prompt = text;
  return body;
}

// The events of a stream, as {name, data}.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = { name: "message", data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) event.name = line.slice(7);
        if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      if (event.data) yield event;
    }
  }
}

async function play() {
  const answer = $("answer"), began = performance.now(), since = () => (performance.now() - began) / 1000;
  const text = document.createTextNode("");
  let first = null, usage = null;
  answer.replaceChildren(text);
  setPlaying(new AbortController());
  setText($("play-state"), "Sent; waiting for the first token.");
  try {
    const path = `v1/${$("kind").value === "chat" ? "chat/completions" : "completions"}`;
    const response = await ask(path, { method: "POST", headers: { "Content-Type": "application/json" },
                                       body: JSON.stringify(playBody()), signal: running.signal });
    for await (const { name, data } of eventsOf(response)) {
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (name === "error") throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      chosen = chunk.id;
      chosenByHand = true;
      showPrefill(chunk.prompt_progress);
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      if (first === null) {
        first = since();
        setText($("play-state"), `First token after ${time(first)}.`);
      }
      const atEnd = answer.scrollHeight - answer.scrollTop - answer.clientHeight < 40;
      text.appendData(choice.delta?.content ?? choice.text ?? "");
      if (atEnd) answer.scrollTop = answer.scrollHeight;
    }
    const server = usage?.runahead ? ` (${time(usage.runahead.ttft_seconds)} in the service)` : "";
    setText($("play-state"), `First token after ${time(first ?? since())}${server}; ` +
      `${plural(usage?.completion_tokens ?? 0, "token")} in ${time(since())}.`);
  } catch (error) {
    const stopped = error.name === "AbortError";
    setText($("play-state"), stopped ? `Stopped after ${time(since())}.` : `It failed: ${error.message}.`);
  }
  setPlaying(null);
  poll();
}

// A meter for the eye alone: four changes a second are nothing to read aloud.
function showPrefill(progress) {
  $("play-meter").hidden = !progress;
  if (progress) $("play-meter").firstChild.style.width = `${(progress.processed / progress.total) * 100}%`;
}

function setPlaying(controller) {
  running = controller;
  showPrefill(null);
  const [on, off] = controller ? [$("stop"), $("send")] : [$("send"), $("stop")];
  const focused = document.activeElement === off;
  on.disabled = false;
  if (focused) on.focus({ preventScroll: true });
  off.disabled = true;
  // A screen reader reads the answer when it is whole, not word by word.
  $("answer").setAttribute("aria-busy", String(running !== null));
}

// ---- start ----

$("key").value = key;
$("key").addEventListener("change", () => {
  key = $("key").value.trim();
  sessionStorage.setItem("runahead-key", key);
  poll();
});
$("play").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running === null) play();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("play").requestSubmit();
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) watchJob(null);
  else poll();
});
poll();
