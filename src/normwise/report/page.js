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
// On paper every table behind a fold is shown.
const folds = [...document.querySelectorAll("details")];
let open = [];
addEventListener("beforeprint", () => { open = folds.map(fold => fold.open); for (const fold of folds) fold.open = true; });
addEventListener("afterprint", () => folds.forEach((fold, i) => { fold.open = open[i]; }));
