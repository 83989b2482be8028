// The progress of a bulk action, asked for each second until it is over.
"use strict";

const bar = document.getElementById("bulk-progress");
const text = document.getElementById("bulk-text");

async function follow() {
  try {
    const answer = await fetch(bar.dataset.url, { headers: { Accept: "application/json" } });
    if (answer.ok) {
      const progress = await answer.json();
      bar.value = progress.settled;
      text.textContent = progress.text;
      if (progress.is_over) {
        location.reload();
        return;
      }
    }
  } catch {
    // No answer this time: the next one tells as much.
  }
  setTimeout(follow, 1000);
}

if (bar && bar.dataset.url) {
  setTimeout(follow, 1000);
}
