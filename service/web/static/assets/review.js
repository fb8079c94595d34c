// Pictures one after another, and what people say of them. The next ones are there before they are asked for.

import { percent } from "./cards.js";

const AHEAD = 8; // pictures that are there before they are shown, with the one that is
const AT_ONCE = 20; // that the service gives
const SHOWN = 9; // labels, one for each digit
const SMALL = 128; // pixels; smaller pictures are shown as they are, enlarged
const LOOK_AGAIN = 10000; // milliseconds
const TELL_EVERY = 5; // pictures
const REASONS = {
  random: "chosen by chance, to measure the accuracy",
  unfamiliar: "is unlike the pictures the model learned from",
  small_margin: "two labels were almost as likely",
  reported: "somebody called the answer wrong",
};

const at = (id) => document.getElementById(id);
const reviewer = (sessionStorage.reviewer ??= Array.from(crypto.getRandomValues(new Uint8Array(12)), hex).join(""));
const queue = []; // pictures that are here, the one that is shown first
const dealtWith = new Set(); // ids of pictures that this page has said something of
const history = []; // the same pictures, the last one last
let known = []; // all labels
let options = []; // those that are listed now
let active = 0; // which of them is chosen
let waiting = 0; // pictures, here and with others
let shown = null;
let unsent = 0; // pictures of which the service does not know yet what was said
let posted = Promise.resolve(); // what is said goes out in order, so that taking it back never comes first
let asking = false;
let turn = 0; // of showing a picture; a later one wins
let timer = 0;

function hex(byte) {
  return byte.toString(16).padStart(2, "0");
}

/** Return the answer to a request; an Error with the service's sentence, and its status, where it is none. */
async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const sent = body ? { method: "POST", headers, body: JSON.stringify({ reviewer, ...body }) } : {};
  const response = await fetch(path, sent).catch(() => {
    throw new Error("The service cannot be reached.");
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw Object.assign(new Error(told.message ?? `The service answered with ${response.status}.`), {
    status: response.status,
  });
}

/** Get pictures until enough are here; one whose file cannot be shown is left to others. */
async function fill() {
  if (asking) return;
  asking = true;
  try {
    const taken = await (await ask("captured/take", { count: Math.min(AT_ONCE, AHEAD + unsent) })).json();
    // What this page has dealt with counts there until it is told.
    waiting = taken.waiting - taken.pictures.filter(({ id }) => dealtWith.has(id)).length;
    for (const picture of taken.pictures) {
      if (dealtWith.has(picture.id) || queue.some(({ id }) => id === picture.id)) continue;
      const content = ask(`captured/${picture.id}/picture`).then((response) => response.blob());
      content.catch(() => {}); // it is told when the picture is to be shown
      queue.push({ ...picture, content });
    }
    say("");
  } catch (error) {
    say(error.message);
  } finally {
    asking = false;
  }
  if (!shown) await next();
  clearTimeout(timer);
  if (queue.length === 0) timer = setTimeout(fill, LOOK_AGAIN);
}

/** Show the first picture of the queue. */
async function next() {
  const picture = queue[0];
  const mine = ++turn;
  shown = null;
  at("work").ariaBusy = "true";
  at("empty").hidden = Boolean(picture) || asking;
  if (!at("empty").hidden) at("work").hidden = true;
  count();
  if (!picture) return;
  try {
    const address = URL.createObjectURL(await picture.content);
    const ready = new Image();
    ready.src = address;
    await ready.decode();
    if (mine === turn) show(picture, ready);
    else URL.revokeObjectURL(address);
  } catch (error) {
    if (mine !== turn) return;
    say(`A picture cannot be shown and is left out: ${error.message}`);
    dealtWith.add(picture.id);
    queue.splice(queue.indexOf(picture), 1);
    await next();
  }
}

function show(picture, ready) {
  const image = at("picture");
  URL.revokeObjectURL(image.src);
  image.src = ready.src;
  image.classList.toggle("small", Math.max(ready.naturalWidth, ready.naturalHeight) < SMALL);
  shown = picture;
  at("work").hidden = false;
  at("work").ariaBusy = "false";
  at("why").textContent = why(picture);
  at("label").value = "";
  list();
  if (!matchMedia("(pointer: coarse)").matches) at("label").focus({ preventScroll: true }); // no keys over the picture
  const [first] = picture.predictions;
  const suggested = picture.suggested ? ` Somebody says: ${picture.suggested}.` : "";
  speak(`Next picture: ${first.label}, ${percent(first.probability)}?${suggested}`);
}

function why({ reasons, model, version, suggested, predictions: [first] }) {
  const told = reasons.map((reason) => REASONS[reason] ?? reason).join("; ");
  return `${model}, version ${version}, said ${first.label}, ${percent(first.probability)}. Kept since: ${told}.${suggested ? ` Somebody says: ${suggested}.` : ""}`;
}

/**
 * Return the labels that what is typed may mean. Without anything the one that somebody suggested comes first, then
 * those that the model found probable.
 */
function matching(typed) {
  const probable = shown.predictions.map(({ label }) => label);
  const all = [...new Set([...(shown.suggested ? [shown.suggested] : []), ...probable, ...known])];
  const wanted = typed.toLocaleLowerCase();
  const begin = all.filter((label) => label.toLocaleLowerCase().startsWith(wanted));
  const within = all.filter((label) => label.toLocaleLowerCase().includes(wanted) && !begin.includes(label));
  const found = [...begin, ...within].slice(0, SHOWN).map((label) => ({ label }));
  const isNew = typed && !all.some((label) => label.toLocaleLowerCase() === wanted);
  return isNew ? [...found, { label: typed, isNew }] : found;
}

function list() {
  options = matching(at("label").value.trim());
  active = 0;
  const digits = digitsChoose();
  at("labels").replaceChildren(...options.map((option, index) => makeOption(option, index, digits)));
  at("keys").textContent =
    `${digits ? "1 to 9 give a label. " : ""}Type to find one, or to write a new one. ` +
    "↑ ↓ move, ⏎ confirms, → skips, ← takes back.";
  choose(0);
}

/** Say whether digits stand for lines of the list: not where labels begin with one, nor while something is typed. */
function digitsChoose() {
  return !at("label").value && !known.some((label) => /^\d/.test(label));
}

function makeOption({ label, isNew }, index, digits) {
  const option = document.createElement("li");
  option.id = `option-${index}`;
  option.role = "option";
  const key = document.createElement(digits ? "kbd" : "span");
  key.textContent = digits ? index + 1 : "";
  key.ariaHidden = "true";
  const name = document.createElement("span");
  name.textContent = isNew ? `New label: ${label}` : label;
  const probability = shown.predictions.find((prediction) => prediction.label === label)?.probability;
  const share = document.createElement("span");
  share.className = "percent muted";
  const said = label === shown.suggested ? "somebody says" : "";
  share.textContent = [said, ...(probability === undefined ? [] : [percent(probability)])].filter(Boolean).join(", ");
  option.append(key, name, share);
  option.addEventListener("click", () => settle(label));
  return option;
}

function choose(index) {
  active = Math.max(0, Math.min(index, options.length - 1));
  for (const [place, option] of Array.from(at("labels").children).entries()) {
    option.ariaSelected = String(place === active);
    if (place === active) option.scrollIntoView({ block: "nearest" });
  }
  at("label").setAttribute("aria-activedescendant", options.length > 0 ? `option-${active}` : "");
}

/** Say what the picture shows, null for nothing that can be said; the next one is shown meanwhile. */
function settle(label) {
  if (!shown) return;
  const picture = shown;
  queue.splice(queue.indexOf(picture), 1);
  dealtWith.add(picture.id);
  history.push(picture);
  waiting = Math.max(0, waiting - 1);
  unsent += 1;
  if (label !== null && !known.includes(label)) known.push(label);
  say("");
  posted = posted.then(() => send(picture, label));
  at("undo").disabled = false;
  if (queue.length < AHEAD / 2) fill();
  next();
  if (history.length % TELL_EVERY === 0 || queue.length === 0) posted = posted.then(tell);
}

async function send(picture, label) {
  try {
    await ask(`captured/${picture.id}/review`, { label });
  } catch (error) {
    say(error.message);
    if (history.includes(picture)) history.splice(history.indexOf(picture), 1);
    at("undo").disabled = history.length === 0;
    if (error.status !== 404 && error.status !== 409) putBack(picture); // else it is gone, or another's
  } finally {
    unsent -= 1;
  }
}

/** Take back what was said last, and show its picture again. */
function undo() {
  const picture = history.pop();
  if (!picture) return;
  at("undo").disabled = history.length === 0;
  posted = posted.then(async () => {
    if (!dealtWith.has(picture.id)) return; // it never got there, and is back already
    try {
      await ask(`captured/${picture.id}/undo`, {});
      waiting += 1;
      putBack(picture);
    } catch (error) {
      say(error.message);
    }
  });
}

function putBack(picture) {
  dealtWith.delete(picture.id);
  queue.unshift(picture);
  next();
}

/** Show what was labelled so far, and how right the service is. */
async function tell() {
  try {
    const so = await (await ask("captured/summary")).json();
    const kinds = Object.entries(so.kinds).map(([kind, { waiting: left }]) => `${left} ${kind.replace("_", " ")}`);
    at("counts").textContent =
      `${so.reviewed} labelled, ${so.skipped} skipped, ${so.waiting} waiting (${kinds.join(", ")}). ` +
      `What waits takes ${so.megabytes.toFixed(1)} of ${so.max_megabytes} MB, and goes after ${so.days} days.`;
    at("unmeasured").hidden = so.accuracy.length > 0;
    at("accuracy").hidden = so.accuracy.length === 0;
    at("accuracy").tBodies[0].replaceChildren(...so.accuracy.map(makeRow));
  } catch (error) {
    say(error.message);
  }
}

function makeRow({ model, version, answers, right, accuracy, low, high }) {
  const row = document.createElement("tr");
  const cells = [`${model}, version ${version}`, `${right} of ${answers}`, percent(accuracy)];
  for (const text of [...cells, `${percent(low)} to ${percent(high)}`]) row.insertCell().textContent = text;
  return row;
}

function count() {
  at("back").hidden = history.length === 0;
  at("end").textContent =
    (waiting > 0 ? "The pictures that wait are with others at the moment." : "No picture waits for a label.") +
    " This page looks again by itself.";
  at("left").textContent = waiting === 1 ? "1 picture waits" : `${waiting} pictures wait`;
}

function say(text) {
  at("message").textContent = text;
}

function speak(text) {
  at("spoken").textContent = text;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const empty = at("label").value === "";
  const place = /^[1-9]$/.test(event.key) && digitsChoose() ? Number(event.key) - 1 : -1;
  const does = {
    ArrowDown: () => choose(active + 1),
    ArrowUp: () => choose(active - 1),
    Escape: () => ((at("label").value = ""), list()),
    ...(empty ? { ArrowRight: () => settle(null), ArrowLeft: undo } : {}),
    ...(place >= 0 ? { [event.key]: () => options[place] && settle(options[place].label) } : {}),
  }[event.key];
  if (!does) return;
  event.preventDefault();
  const moves = event.key === "ArrowDown" || event.key === "ArrowUp";
  if (shown && (moves || !event.repeat)) does(); // a key that is held down labels one picture
}

function listen() {
  let held = false; // Enter, of which only the first counts
  at("label").addEventListener("keydown", (event) => {
    if (event.key === "Enter") held = event.repeat;
    press(event);
  });
  at("label").addEventListener("input", () => shown && list());
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!held && options[active]) settle(options[active].label);
    held = false;
  });
  at("skip").addEventListener("click", () => settle(null));
  for (const id of ["undo", "back"]) at(id).addEventListener("click", undo);
  document.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" && !event.repeat && !at("empty").hidden) undo();
  });
}

async function begin() {
  listen();
  try {
    const labels = await (await ask("captured/labels")).json();
    known = [...labels.model, ...labels.added];
  } catch (error) {
    say(error.message);
  }
  await fill();
  await tell();
}

begin();
