// One card for each picture: its thumbnail and name, and what came of it.

const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const LEAST = 0.0005; // what would be shown as 0.0%

/** Return a probability as people read it. */
export function percent(probability) {
  return probability < LEAST ? "< 0.1%" : PERCENT.format(probability);
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

/** Show in a card what came of its picture: predictions and whether it is familiar, or a message. */
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
  answers.replaceChildren(...outcome.predictions.map(makeAnswer));
  answers.hidden = false;
  card.querySelector(".unfamiliar").hidden = outcome.familiar !== false; // missing where the model does not tell it
}

/** Let go of what a card holds. */
export function dropCard(card) {
  const thumbnail = card.querySelector("img");
  if (thumbnail) URL.revokeObjectURL(thumbnail.src);
  card.remove();
}

function makeAnswer({ label, probability }) {
  const answer = copy("answer");
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

function copy(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}
