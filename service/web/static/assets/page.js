// What happens on the page, and where it goes.

import { dropCard, fillCard, makeCard, percent } from "./cards.js";
import { commands } from "./curl.js";
import { chosen, dropped } from "./files.js";
import { Filters } from "./filters.js";
import { ModelLine } from "./model.js";
import { Sender } from "./send.js";

const at = (id) => document.getElementById(id);
const cards = new Map(); // picture -> card
const counts = { sent: 0, answered: 0, bad: 0 }; // since nothing was under way
const filters = new Filters();
const model = new ModelLine(offerSamples);
const sender = new Sender({ answered, waiting, finished });

/** Show a card for each picture, the newest pictures first and each drop in its order, and send them. */
function take(pictures) {
  if (pictures.length === 0) {
    say("There is no picture in this.");
    return;
  }
  filters.showAll();
  for (const picture of pictures) cards.set(picture, makeCard(picture));
  at("cards").prepend(...pictures.map((picture) => cards.get(picture)));
  at("command").textContent = commands(pictures, document.baseURI);
  counts.sent += pictures.length;
  say("");
  speak(`Sending ${counted(counts.sent)}.`);
  showRunning(true);
  for (const id of ["toolbar", "curl"]) at(id).hidden = false;
  sender.add(pictures);
  at("results").scrollIntoView({ block: "nearest" });
}

function answered(picture, outcome, by) {
  const card = cards.get(picture);
  if (!card) return; // cleared meanwhile
  counts.answered += 1;
  if (!outcome.predictions) counts.bad += 1;
  showPace(`${counts.answered} of ${counts.sent}`);
  fillCard(card, outcome);
  filters.add(card, outcome);
  if (by) model.answeredBy(by);
  if (counts.sent === 1) speak(spoken(picture, outcome));
}

function waiting(seconds) {
  showPace(`${counts.answered} of ${counts.sent}; the service is busy, going on in ${seconds} s`);
}

function finished() {
  say(counts.sent > 1 ? summary() : "");
  startCounting();
  showRunning(false);
}

function startCounting() {
  Object.assign(counts, { sent: 0, answered: 0, bad: 0 });
}

/** Forget all pictures; those under way as well. */
function clear() {
  cards.forEach(dropCard);
  cards.clear();
  filters.clear();
  startCounting();
  sender.cancel();
  say("");
  for (const id of ["toolbar", "curl"]) at(id).hidden = true;
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

function showPace(text) {
  at("progress").max = counts.sent;
  at("progress").value = counts.answered;
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
  const [{ label, probability }] = outcome.predictions;
  const note = outcome.familiar === false ? " This looks like nothing the model was trained on." : "";
  return `${name}: ${label}, ${percent(probability)}.${note}`;
}

function summary() {
  const good = counts.sent - counts.bad;
  return counts.bad ? `${good} of ${counted(counts.sent)} answered; ${counts.bad} not.` : `${counted(good)} answered.`;
}

function counted(pictures) {
  return pictures === 1 ? "1 picture" : `${pictures} pictures`;
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
  at("cancel").addEventListener("click", () => sender.cancel());
  at("clear").addEventListener("click", clear);
  at("copy").addEventListener("click", copy);
  for (const button of document.querySelectorAll("[data-label]")) button.addEventListener("click", takeSample);
}

at("files").multiple = true;
for (const element of document.querySelectorAll(".plain")) element.hidden = true;
for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
listen();
model.ask();
