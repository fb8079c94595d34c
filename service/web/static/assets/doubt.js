// Whether an answer is sure: one rule for cards, buttons, order and what is read out. The page tells it in #legend.

/** From this probability of its first label on an answer is sure, if its picture is familiar. */
const SURE = 0.8;

export const UNFAMILIAR = "This is unlike the pictures the model learned from.";
const NONE = "It may show nothing that the model knows.";
const WEAK = `No label reaches ${100 * SURE}%.`;

/** Return why an answer is not sure, as a sentence; an empty text where it is sure, or where there is no answer. */
export function doubt({ labels, predictions, familiar }) {
  if (!predictions) return "";
  if (familiar === false) return UNFAMILIAR; // missing where the model does not tell it
  if (labels?.length === 0) return NONE;
  return (labels ?? predictions)[0].probability < SURE ? WEAK : "";
}

/** Say whether two versions say the same of a picture; undefined where one of them gave no answer. */
export function agree(one, other) {
  if (!one.predictions || !other.predictions) return undefined;
  const said = ({ labels, predictions }) => (labels ?? predictions.slice(0, 1)).map(({ label }) => label);
  return said(one).sort().join("\n") === said(other).sort().join("\n");
}

/** Return how sure an outcome is, to sort by: unfamiliar pictures first, then by probability, and no answer last. */
export function sureness({ predictions, familiar }) {
  if (!predictions) return 2;
  return predictions[0].probability - (familiar === false ? 1 : 0);
}
