// An answer that somebody calls wrong: its picture is kept for people to label. Only where the service keeps pictures.

import { copy } from "./cards.js";

const UNREACHED = "The connection failed: the service is not there any more.";
const at = (id) => document.getElementById(id);

/** Let the labels of the model be found by typing. */
export function nameLabels(labels) {
  at("all-labels")?.replaceChildren(...labels.map((label) => new Option("", label)));
}

/** Offer in the card of a picture to say that its answer is wrong. */
export function offerWrong(card, { file, name }, by) {
  if (!at("wrong")) return;
  const wrong = copy("wrong");
  const button = wrong.querySelector("button");
  const form = wrong.querySelector("form");
  const input = form.querySelector("input");
  button.ariaLabel = `Wrong? ${name}`; // there may be many of them
  button.addEventListener("click", () => {
    const opens = button.ariaExpanded !== "true";
    button.ariaExpanded = String(opens);
    form.hidden = !opens;
    if (opens) input.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const label = meant(input.value.trim());
    if (label === undefined) {
      tell(form, "The model has no such label. Take one of the list, or leave it open.");
      return;
    }
    form.querySelector("button").disabled = true;
    tell(form, "Sending it…");
    const { kept, message } = await report(file, label, by);
    form.querySelector("button").disabled = kept;
    tell(form, message);
  });
  card.querySelector(".asides").append(wrong);
}

/** Return the label that was typed, empty where none was; undefined where the model has none of that name. */
function meant(typed) {
  const labels = Array.from(at("all-labels").options, ({ value }) => value);
  const same = (label) => label.toLocaleLowerCase() === typed.toLocaleLowerCase();
  return typed === "" || labels.includes(typed) ? typed : labels.find(same);
}

function tell(form, text) {
  form.querySelector(".told-wrong").textContent = text;
}

/** Send a picture; return whether it is kept, and what people are told. */
async function report(file, label, { name, version }) {
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream"; // browsers have none for HEIC
  try {
    const query = new URLSearchParams({ ...(label ? { label } : {}), model: name, version });
    const response = await fetch(`report?${query}`, { method: "POST", body: file, headers: { "Content-Type": type } });
    const answer = await response.json().catch(() => null); // a proxy's error page is no JSON
    if (response.ok) return { kept: answer.kept, message: "Thank you: it is kept for people to look at." };
    return { kept: false, message: answer?.message ?? `The service answered with ${response.status}.` };
  } catch {
    return { kept: false, message: UNREACHED };
  }
}
