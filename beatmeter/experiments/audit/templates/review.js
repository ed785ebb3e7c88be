(() => {
  const form = document.getElementById("review");
  const fields = (card) => ["select", ".other", ".comment"].map((name) => card.querySelector(name));
  const decision = (card) => {
    const [select, other] = fields(card);
    return other.value.trim() || select.value;
  };
  reviewing({
    form,
    cards: [...form.querySelectorAll("article")],
    name: (card) => card.dataset.id,
    values: (card) => fields(card).map((field) => field.value),
    restore: (card, values) => values.forEach((value, i) => { fields(card)[i].value = value; }),
    decision,
    row: (card) => [card.dataset.id, card.dataset.label, decision(card), card.querySelector(".comment").value],
  });
})();
