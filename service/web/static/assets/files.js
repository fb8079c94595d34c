// What people drop, paste or choose, as pictures: {file, name}.

// Most browsers have no type for them, nor a preview.
const HEIC = /\.(heic|heif|hif)$/i;
const inOrder = new Intl.Collator("en", { numeric: true });

/** Return the files of a list as pictures. */
export function chosen(files) {
  return Array.from(files, (file) => ({ file, name: file.name }));
}

/**
 * Return the files of a drop as pictures; of a folder those that look like pictures, by the path below the drop.
 * What was dropped must be taken before anything is waited for: it is gone after the event.
 */
export async function dropped(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return chosen(transfer.files);
  const pictures = [];
  for (const entry of entries) await collect(entry, pictures);
  return pictures;
}

async function collect(entry, pictures) {
  if (entry.isDirectory) {
    const inside = await children(entry);
    inside.sort((a, b) => inOrder.compare(a.name, b.name));
    for (const child of inside) await collect(child, pictures);
    return;
  }
  const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
  const name = entry.fullPath.slice(1);
  if (file.type.startsWith("image/") || HEIC.test(name) || !name.includes("/")) pictures.push({ file, name });
}

/** Return all entries of a folder, which the browser gives in portions until one is empty. */
async function children(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return all;
    all.push(...some);
  }
}
