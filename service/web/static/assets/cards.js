// One card for each picture: its thumbnail and name, and what came of it.

import { doubt } from "./doubt.js";

const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const LEAST = 0.0005; // less would be shown as 0.0%, and as little below 1 as 100.0%
const FOLDED = 0.01; // labels below it are folded away

/** Return a probability as people read it. */
export function percent(probability) {
  if (probability < LEAST) return "< 0.1%";
  return probability < 1 - LEAST ? PERCENT.format(probability) : "> 99.9%"; // nothing is certain
}

/** Return a new card for a picture that waits for its answer. */
export function makeCard({ file, name }) {
  const card = copy("card");
  card.querySelector(".name").append(...breakable(name));
  const thumbnail = card.querySelector(".thumbnail");
  thumbnail.alt = `Thumbnail of ${name}`;
  thumbnail.addEventListener("error", () => {
    URL.revokeObjectURL(thumbnail.src);
    thumbnail.replaceWith(placeholder());
  });
  thumbnail.src = URL.createObjectURL(file);
  return card;
}

/** Show in a card what came of its picture: whether that is sure, and the predictions; or a message. */
export function fillCard(card, outcome) {
  card.classList.remove("waiting");
  const message = card.querySelector(".message");
  if (!outcome.predictions) {
    card.classList.add("bad");
    message.textContent = outcome.message;
    return;
  }
  message.remove();
  const answers = card.querySelector(".answers");
  if (outcome.labels) showSeveral(card, answers, outcome);
  else answers.replaceChildren(...outcome.predictions.map(makeAnswer));
  answers.hidden = false;
  foldUnlikely(card, answers);
  showDoubt(card, outcome);
  offerDetails(card);
}

/** Show beside the answer to a picture what another version says, and whether that is the same. */
export function showOther(card, by, other, otherBy, agrees) {
  const side = copy("other");
  const [mine, theirs] = [card.querySelector(".which"), side.querySelector(".which")];
  mine.textContent = `version ${by.version}`;
  mine.hidden = false;
  theirs.textContent = otherBy ? `version ${otherBy.version}` : "the other version";
  if (agrees === false) theirs.append(" ", difference());
  const answers = side.querySelector(".answers");
  const likely = other.predictions?.filter(({ probability }, index) => index === 0 || probability >= FOLDED) ?? [];
  if (other.labels) fillSeveral(answers, { ...other, predictions: likely });
  else answers.replaceChildren(...likely.map(makeAnswer));
  const message = side.querySelector(".message");
  message.textContent = other.predictions ? "" : other.message;
  message.hidden = Boolean(other.predictions);
  card.classList.toggle("differs", agrees === false);
  card.querySelector(".sides").append(side);
}

function difference() {
  const mark = document.createElement("span");
  mark.className = "difference";
  mark.textContent = "differs";
  return mark;
}

/** Say whether the answer is sure, before it. */
function showDoubt(card, outcome) {
  const reason = doubt(outcome);
  card.classList.toggle("unsure", reason !== "");
  card.querySelector(".mark").textContent = reason ? "Not sure" : "Sure";
  card.querySelector(".reason").textContent = reason;
  card.querySelector(".verdict").hidden = false;
}

/** Fold away the labels that are most unlikely; not the first, which is the answer. */
function foldUnlikely(card, answers) {
  const [, ...others] = answers.children;
  const rows = others.filter((row) => Number(row.dataset.probability) < FOLDED);
  const button = card.querySelector(".unlikely");
  button.hidden = rows.length === 0;
  const fold = (folded) => {
    for (const row of rows) row.hidden = folded;
    button.ariaExpanded = String(!folded);
    button.textContent = folded ? `${rows.length} more below ${100 * FOLDED}%` : `without those below ${100 * FOLDED}%`;
  };
  button.addEventListener("click", () => fold(button.ariaExpanded === "true"));
  fold(true);
}

/** Let a card among many show all that one among few shows. */
function offerDetails(card) {
  const button = card.querySelector(".details");
  button.ariaLabel = `Details ${card.querySelector(".name").textContent}`; // there may be many of them
  button.hidden = false;
  button.addEventListener("click", () => (button.ariaExpanded = String(card.classList.toggle("open"))));
}

/** Let go of what a card holds. */
export function dropCard(card) {
  for (const image of card.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  card.remove();
}

function showSeveral(card, answers, outcome) {
  fillSeveral(answers, outcome);
  card.querySelector(".none").hidden = outcome.labels.length > 0;
}

/** Show all labels that a picture has, and below them the most probable of the others. */
function fillSeveral(answers, { labels, predictions }) {
  const told = new Set(labels.map(({ label }) => label));
  const others = predictions.filter(({ label }) => !told.has(label)).map(makeAnswer);
  for (const other of others) other.classList.add("other");
  answers.classList.add("several");
  answers.replaceChildren(...labels.map(makeAnswer), ...others);
}

function makeAnswer({ label, probability }) {
  const answer = copy("answer");
  answer.dataset.probability = probability;
  answer.querySelector(".label").textContent = label;
  answer.querySelector(".percent").textContent = percent(probability);
  answer.querySelector(".bar").style.width = `${100 * probability}%`;
  return answer;
}

/** Return a path as text that may be broken after its folders. */
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((step) => [step, document.createElement("wbr")]);
}

/** Return what stands in for a picture that the browser cannot show. */
function placeholder() {
  const box = document.createElement("div");
  box.className = "thumbnail";
  box.textContent = "no preview";
  return box;
}

/** Return a new element like the one in a template of the page. */
export function copy(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}
