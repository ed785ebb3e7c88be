"use strict";
// What the reviews of labels and of beats share: decisions stay in this browser, are counted, and saved as a CSV file.
// name(card): its name in the browser's store; values(card), restore(card, values): what is kept of it;
// decision(card): empty while undecided; row(card): its cells of the file.
const reviewing = ({ form, cards, name, values, restore, decision, row }) => {
  const store = "beatmeter-review-" + form.dataset.key;
  const show = () => {
    cards.forEach((card) => card.classList.toggle("decided", decision(card) !== ""));
    const done = cards.filter((card) => decision(card) !== "").length;
    document.getElementById("count").textContent = `${done} of ${cards.length} decided`;
  };
  const keep = () => {
    const state = Object.fromEntries(cards.map((card) => [name(card), values(card)]));
    try { localStorage.setItem(store, JSON.stringify(state)); } catch (error) { /* private window: save the file instead */ }
    show();
  };
  const cell = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  const table = () => [form.dataset.columns.split(","), ...cards.map(row)].map((cells) => cells.map(cell).join(",") + "\n").join("");
  let state = {};
  try { state = JSON.parse(localStorage.getItem(store) || "{}"); } catch (error) { /* as above */ }
  cards.forEach((card) => { if (state[name(card)]) restore(card, state[name(card)]); });
  form.addEventListener("input", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("play", (event) => {
    document.querySelectorAll("audio").forEach((other) => { if (other !== event.target) other.pause(); });
  }, true);
  document.getElementById("save").addEventListener("click", () => {
    const file = document.createElement("a");
    file.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    file.download = "review.csv";
    file.click();
  });
  show();
  return { keep };
};
