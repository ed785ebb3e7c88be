"use strict";
(() => {
  const form = document.getElementById("review");
  const cards = [...form.querySelectorAll("article")];
  const store = "beatmeter-review-" + form.dataset.key;
  const fields = (card) => ["select", ".other", ".comment"].map((name) => card.querySelector(name));
  const decision = (card) => {
    const [select, other] = fields(card);
    return other.value.trim() || select.value;
  };
  const show = () => {
    cards.forEach((card) => card.classList.toggle("decided", decision(card) !== ""));
    const done = cards.filter((card) => decision(card) !== "").length;
    document.getElementById("count").textContent = `${done} of ${cards.length} decided`;
  };
  const keep = () => {
    const state = Object.fromEntries(cards.map((card) => [card.dataset.id, fields(card).map((f) => f.value)]));
    try { localStorage.setItem(store, JSON.stringify(state)); } catch (error) { /* private window: save the file instead */ }
    show();
  };
  const restore = () => {
    let state = {};
    try { state = JSON.parse(localStorage.getItem(store) || "{}"); } catch (error) { /* as above */ }
    cards.forEach((card) => (state[card.dataset.id] || []).forEach((value, i) => { fields(card)[i].value = value; }));
  };
  const cell = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  const table = () => {
    const rows = cards.map((card) => [card.dataset.id, card.dataset.label, decision(card), card.querySelector(".comment").value]);
    return [form.dataset.columns.split(","), ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
  };
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
  restore();
  show();
})();
