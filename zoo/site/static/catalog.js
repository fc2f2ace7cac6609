// Filters of the catalog: rows show if they match all of them.

const form = document.querySelector("#filters");
const rows = [...document.querySelectorAll("tr[data-name]")];

function update() {
  const wanted = Object.fromEntries(new FormData(form));
  const text = wanted.text.trim().toLowerCase();
  const largest = wanted.size ? Number(wanted.size) : Infinity;
  let shown = 0;
  for (const row of rows) {
    const { name, dataset, cell, topology, parameters } = row.dataset;
    row.hidden = !(
      name.includes(text) &&
      (!wanted.dataset || dataset === wanted.dataset) &&
      (!wanted.cell || cell === wanted.cell) &&
      (!wanted.topology || topology === wanted.topology) &&
      Number(parameters) <= largest
    );
    shown += !row.hidden;
  }
  for (const section of document.querySelectorAll("section[data-protocol]")) {
    section.hidden = ![...section.querySelectorAll("tr[data-name]")].some((row) => !row.hidden);
  }
  document.querySelector("#count").textContent = `${shown} of ${rows.length} models`;
}

form.addEventListener("input", update);
update();
