// Shows whether each part is well, for as long as somebody looks.
"use strict";

const interval = 2000;

function show(part, state) {
  const row = document.querySelector(`#parts [data-part="${CSS.escape(part)}"]`);
  const cell = row?.cells[1];
  if (!cell || cell.dataset.state === state) return; // said once, not each time
  cell.dataset.state = state;
  cell.textContent = state;
}

async function look() {
  try {
    const response = await fetch("/status.json", { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(response.statusText);
    const { parts } = await response.json();
    for (const { name, well } of parts) show(name, well ? "well" : "away");
  } catch {
    // Whoever asks through it knows nothing of the others then.
    for (const row of document.querySelectorAll("#parts [data-part]")) {
      show(row.dataset.part, row.dataset.part === "gateway" ? "away" : "unknown");
    }
  }
}

async function keepLooking() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise(resolve => setTimeout(resolve, interval));
  }
}

keepLooking();
