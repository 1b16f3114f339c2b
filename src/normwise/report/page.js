// Click a header to sort its table by that column: numbers from high to low first, words from A to Z (pgd-5 before pgd-20); again to turn it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const number = head.dataset.kind !== "words", before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : number;
    const key = row => row.cells[column].dataset.sort ?? "";
    const order = (a, b) => number ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
    const rows = [...body.rows].sort((one, other) => {
      const a = key(one), b = key(other);
      if (a === "" || b === "") return (a === "") - (b === "");  // what is missing stays last
      return down ? order(b, a) : order(a, b);
    });
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  }));
}
// A mark says its values beside the pointer, and beside itself where it has the focus; arrow keys lead from mark to mark, Escape hides what it says.
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("aria-hidden", "true");  // a mark's own name says the same
tip.hidden = true;
document.body.append(tip);
const say = (marks, x, y) => {
  tip.hidden = !marks.length;
  tip.textContent = marks.map(mark => mark.getAttribute("aria-label")).join("\n");
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
  tip.style.top = `${y > height + 12 ? y - height - 12 : y + 16}px`;
};
const apart = (mark, x, y) => {
  const { left, right, top, bottom } = mark.getBoundingClientRect();
  return Math.hypot(Math.max(left - x, x - right, 0), Math.max(top - y, y - bottom, 0));
};
for (const figure of document.querySelectorAll("figure")) {
  const marks = [...figure.querySelectorAll(".said")], shown = () => marks.filter(mark => !mark.closest(".off"));
  if (!marks.length) continue;
  figure.querySelector("[role=img]").setAttribute("role", "group");
  for (const mark of marks) {
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", mark.querySelector("title").textContent);
    mark.querySelector("title").remove();
    mark.setAttribute("tabindex", mark === marks[0] ? 0 : -1);
    mark.closest("svg").removeAttribute("aria-hidden");
    mark.addEventListener("focus", () => {
      const { left, right, top, bottom } = mark.getBoundingClientRect();
      say([mark], (left + right) / 2, (top + bottom) / 2);
      for (const each of marks) each.setAttribute("tabindex", each === mark ? 0 : -1);
    });
    mark.addEventListener("blur", () => say([]));
  }
  const near = event => {
    const from = shown().map(mark => [apart(mark, event.clientX, event.clientY), mark]);
    const least = Math.min(...from.map(([far]) => far));
    say(least < 12 ? from.filter(([far]) => far === least).map(([, mark]) => mark) : [], event.clientX, event.clientY);
  };
  for (const move of ["pointermove", "pointerdown"]) figure.addEventListener(move, near);
  figure.addEventListener("pointerleave", () => say([]));
  figure.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], all = shown(), at = all.indexOf(document.activeElement);
    if (event.key === "Escape") say([]);
    if (!step || at < 0) return;
    event.preventDefault();
    all[(at + step + all.length) % all.length].focus();
  });
}
// A cell is shown if each choice has a ticked name of its own.
for (const filter of document.querySelectorAll(".filter")) {
  const choices = [...filter.querySelectorAll("fieldset")].map(choice => [...choice.querySelectorAll("input")]);
  const parts = [...document.querySelectorAll("[data-of]")], count = new Set(parts.map(part => part.dataset.of)).size;
  filter.hidden = false;
  filter.addEventListener("change", () => {
    const chosen = choices.map(boxes => new Set(boxes.filter(box => box.checked).flatMap(box => box.value.split(" "))));
    const kept = of => chosen.every(numbers => numbers.has(of));
    for (const part of parts) part.classList.toggle("off", !kept(part.dataset.of));
    const left = new Set(parts.map(part => part.dataset.of).filter(kept)).size;
    filter.nextElementSibling.hidden = left === count;
    filter.nextElementSibling.textContent = `Shown: ${left} of ${count} networks. The sentences are about all.`;
  });
}
// On paper every table behind a fold is shown.
const folds = [...document.querySelectorAll("details")];
let open = [];
addEventListener("beforeprint", () => { open = folds.map(fold => fold.open); for (const fold of folds) fold.open = true; });
addEventListener("afterprint", () => folds.forEach((fold, i) => { fold.open = open[i]; }));
