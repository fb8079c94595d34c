// What happens on the page, and where it goes.

import { dropCard, fillCard, makeCard, percent, showOther } from "./cards.js";
import { Choice } from "./choice.js";
import { commands } from "./curl.js";
import { agree, doubt, sureness, UNFAMILIAR } from "./doubt.js";
import { download, record, withOther } from "./download.js";
import { chosen, dropped } from "./files.js";
import { Filters } from "./filters.js";
import { ModelLine } from "./model.js";
import { Pager } from "./pager.js";
import { Sender } from "./send.js";
import { offerWhy } from "./why.js";
import { nameLabels, offerWrong } from "./wrong.js";

const OF_RESULTS = ["toolbar", "legend", "curl"]; // what is there with the first card
const NARROW = "(max-width: 40rem)";
const MOST_AGAIN = 500; // pictures that another version is asked for at once
const NOT_AGAIN = { message: `Not asked again: only the newest ${MOST_AGAIN} are. Drop it once more.` };
const at = (id) => document.getElementById(id);
const cards = new Map(); // picture -> card
const outcomes = new Map(); // card -> what came of it
const records = new Map(); // picture -> what is downloaded of it
const sides = new Map(); // picture -> {own, other}, the outcomes of two versions, each with the version that it is by
const differing = new Set(); // cards on which these differ
const counts = { sent: 0, answered: 0, compared: 0, bad: 0 }; // since nothing was under way
const RANKS = {
  "by-doubt": (card) => sureness(outcomes.get(card) ?? {}),
  "by-difference": (card) => (differing.has(card) ? 0 : 1),
};
const filters = new Filters(() => pager.first());
const pager = new Pager((card) => filters.wants(card));
const choice = new Choice(askAgain);
const model = new ModelLine(ready);
let pictures = []; // the newest first
let senders = []; // what asks the version that was chosen, and the one to compare with
let run = 0; // of these; what earlier ones are still told counts no more

/** Begin to ask what was chosen. */
function makeSenders() {
  const mine = ++run;
  const current = (tell) => (...told) => mine === run && tell(...told);
  const told = { waiting: current(waiting), finished: current(finished) };
  senders.forEach((sender) => sender.cancel());
  senders = [new Sender({ ...told, answered: current(answered) }, `predict/batch${choice.query}`)];
  const other = choice.otherQuery;
  if (other) senders.push(new Sender({ ...told, answered: current(compared) }, `predict/batch${other}`));
  else if (at("by-difference").ariaPressed === "true") at("by-difference").click(); // there is none any more
  at("cards").classList.toggle("comparing", Boolean(other));
}

/** Show a card for each picture, the newest pictures first and each drop in its order, and send them. */
async function take(taken) {
  await known; // which models there are to ask
  if (taken.length === 0) {
    say("There is no picture in this.");
    return;
  }
  pictures = [...taken, ...pictures];
  send(taken);
  at("results").scrollIntoView({ block: matchMedia(NARROW).matches ? "start" : "nearest" });
}

function send(taken) {
  filters.showAll();
  for (const picture of taken) cards.set(picture, makeCard(picture));
  pager.prepend(taken.map((picture) => cards.get(picture)));
  at("command").textContent = commands(taken, document.baseURI, choice.query);
  counts.sent += taken.length;
  say("");
  at("agreement").textContent = "";
  speak(`Sending ${counted(counts.sent)}.`);
  showRunning(true);
  for (const id of OF_RESULTS) at(id).hidden = false;
  for (const sender of senders) sender.add(taken);
}

/** Ask for the answers of what was chosen to all that is on the page, and let what leads from it follow. */
function askAgain() {
  model.ask(choice.query);
  for (const link of document.querySelectorAll('[href^="model/card"]')) link.href = `model/card${choice.query}`;
  forget();
  makeSenders();
  if (pictures.length === 0) return;
  const rest = pictures.slice(MOST_AGAIN);
  for (const picture of rest) cards.set(picture, makeCard(picture));
  pager.prepend(rest.map((picture) => cards.get(picture)));
  counts.sent += rest.length;
  send(pictures.slice(0, MOST_AGAIN));
  for (const picture of rest) answered(picture, NOT_AGAIN);
}

function answered(picture, outcome, by) {
  const card = cards.get(picture);
  if (!card) return; // cleared meanwhile
  counts.answered += 1;
  if (!outcome.predictions) counts.bad += 1;
  showPace(`${counts.answered} of ${counts.sent}`);
  fillCard(card, outcome);
  if (outcome.predictions && model.explains) offerWhy(card, picture, outcome.predictions, by);
  if (outcome.predictions) offerWrong(card, picture, by);
  outcomes.set(card, outcome);
  records.set(picture, record(picture, outcome, by));
  filters.add(card, outcome);
  pager.showSoon();
  if (by) model.answeredBy(by);
  if (counts.sent === 1) speak(spoken(picture, outcome));
  besides(picture, { own: { outcome, by } });
}

/** Note what the version says that is compared with. */
function compared(picture, outcome, by) {
  if (!cards.has(picture)) return;
  counts.compared += 1;
  showPace(`${counts.answered} of ${counts.sent}`);
  besides(picture, { other: { outcome, by } });
}

/** Show what two versions say of a picture, once both are there. */
function besides(picture, side) {
  const { own, other } = { ...sides.get(picture), ...side };
  sides.set(picture, { own, other });
  if (!own?.by || !other || !(own.outcome.predictions ?? other.outcome.predictions)) return; // nothing to compare
  const card = cards.get(picture);
  const agrees = agree(own.outcome, other.outcome);
  showOther(card, own.by, other.outcome, other.by, agrees);
  records.set(picture, withOther(records.get(picture), record(picture, other.outcome, other.by), agrees));
  if (agrees !== false) return;
  differing.add(card);
  filters.addDifferent(card);
  pager.showSoon();
}

function waiting(seconds) {
  showPace(`${counts.answered} of ${counts.sent}; the service is busy, going on in ${seconds} s`);
}

function finished() {
  if (senders.some((sender) => sender.busy)) return; // the other version has something to say yet
  filters.arrange();
  pager.show();
  showTools();
  say(counts.sent > 1 ? summary() : "");
  at("agreement").textContent = agreement();
  startCounting();
  showRunning(false);
}

function startCounting() {
  Object.assign(counts, { sent: 0, answered: 0, compared: 0, bad: 0 });
}

/** Forget all answers; those under way as well. */
function forget() {
  cards.forEach(dropCard);
  for (const known of [cards, outcomes, records, sides, differing]) known.clear();
  filters.clear();
  pager.clear();
  startCounting();
  senders.forEach((sender) => sender.cancel());
  say("");
  at("agreement").textContent = "";
  showTools();
}

/** Forget all pictures. */
function clear() {
  pictures = [];
  forget();
  for (const id of OF_RESULTS) at(id).hidden = true;
  at("choose").focus();
}

function showRunning(running) {
  const focused = document.activeElement === at("cancel");
  at("running").hidden = !running;
  at("cancel").hidden = !running;
  if (focused && !running) at("clear").focus(); // the button that had the focus is gone
  at("results").ariaBusy = String(running);
  if (running) showPace(`${counts.answered} of ${counts.sent}`);
}

/** Offer what can be done with the answers, where there are some. */
function showTools() {
  at("by-doubt").hidden = records.size < 2;
  at("by-difference").hidden = records.size < 2 || !choice.otherQuery;
  for (const button of document.querySelectorAll(".download")) button.hidden = records.size === 0;
}

function showPace(text) {
  at("progress").max = counts.sent * senders.length;
  at("progress").value = counts.answered + counts.compared;
  at("pace").textContent = text;
}

function say(text) {
  at("status").textContent = text;
}

/** Tell only those who hear the page; the others see it. */
function speak(text) {
  at("spoken").textContent = text;
}

function spoken({ name }, outcome) {
  if (!outcome.predictions) return `${name}: ${outcome.message}`;
  const answers = outcome.labels ?? outcome.predictions.slice(0, 1);
  const told = answers.map(({ label, probability }) => `${label}, ${percent(probability)}`).join("; ");
  const note = outcome.familiar === false ? ` ${UNFAMILIAR}` : "";
  return `${name}: ${told && doubt(outcome) ? "not sure: " : ""}${told || "none of the labels"}.${note}`;
}

function summary() {
  const good = counts.sent - counts.bad;
  return counts.bad ? `${good} of ${counted(counts.sent)} answered; ${counts.bad} not.` : `${counted(good)} answered.`;
}

/** Return on how many pictures two versions agree, of those that both have answered. */
function agreement() {
  const both = [...sides.values()].filter(({ own, other }) => own?.by && other?.by);
  if (both.length === 0) return "";
  const same = both.filter(({ own, other }) => agree(own.outcome, other.outcome)).length;
  const all = both.filter(({ own, other }) => agree(own.outcome, other.outcome) !== undefined).length;
  const [{ own, other }] = both;
  return `Versions ${own.by.version} and ${other.by.version} agree on ${same} of ${counted(all)}.`;
}

function counted(count) {
  return count === 1 ? "1 picture" : `${count} pictures`;
}

function ready(shown) {
  offerSamples(shown.labels);
  nameLabels(shown.labels);
  if (!choice.knows(shown)) choice.load(); // a new version has come
}

/** Offer the sample drawings whose label the model knows. */
function offerSamples(labels) {
  const buttons = Array.from(document.querySelectorAll("[data-label]"));
  for (const button of buttons) button.parentElement.hidden = !labels.includes(button.dataset.label);
  at("samples").hidden = !buttons.some((button) => labels.includes(button.dataset.label));
}

async function takeSample({ currentTarget: button }) {
  const address = button.querySelector("img").src;
  const name = address.split("/").at(-1);
  try {
    const content = await (await fetch(address)).blob();
    take([{ file: new File([content], name, { type: content.type }), name, address }]);
  } catch {
    say("The service cannot be reached.");
  }
}

/** Copy the commands; outside of HTTPS and this machine browsers have only the old way. */
async function copy() {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(at("command").textContent);
  } else {
    getSelection().selectAllChildren(at("command"));
    document.execCommand("copy");
  }
  at("copy").textContent = "Copied";
  setTimeout(() => (at("copy").textContent = "Copy"), 2000);
}

function holdsFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

function listenForDrops() {
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    dragging(true);
  });
  addEventListener("dragleave", (event) => dragging(event.relatedTarget !== null));
  addEventListener("drop", async (event) => {
    dragging(false);
    if (!holdsFiles(event)) return;
    event.preventDefault();
    try {
      take(await dropped(event.dataTransfer));
    } catch {
      say("The browser cannot read all of what was dropped.");
    }
  });
}

function listen() {
  listenForDrops();
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) take(chosen(event.clipboardData.files));
  });
  at("choose").addEventListener("click", () => at("files").click());
  at("files").addEventListener("change", () => {
    take(chosen(at("files").files));
    at("files").value = ""; // so that the same picture can be chosen again
  });
  at("photograph").addEventListener("click", () => at("camera").click());
  at("camera").addEventListener("change", () => {
    take(chosen(at("camera").files));
    at("camera").value = "";
  });
  for (const button of document.querySelectorAll(".sort")) {
    button.addEventListener("click", () => {
      const sorts = button.ariaPressed !== "true";
      for (const other of document.querySelectorAll(".sort")) other.ariaPressed = String(sorts && other === button);
      pager.sort(sorts ? RANKS[button.id] : null);
    });
  }
  for (const button of document.querySelectorAll(".download")) {
    button.addEventListener("click", () => download([...records.values()], button.dataset.format));
  }
  at("cancel").addEventListener("click", () => senders.forEach((sender) => sender.cancel()));
  at("clear").addEventListener("click", clear);
  at("copy").addEventListener("click", copy);
  for (const button of document.querySelectorAll("[data-label]")) button.addEventListener("click", takeSample);
}

at("files").multiple = true;
at("photograph").hidden = !matchMedia("(any-pointer: coarse)").matches; // phones and tablets
for (const element of document.querySelectorAll(".plain")) element.hidden = true;
for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
makeSenders();
const known = choice.load();
known.then(() => model.ask(choice.query));
listen();
