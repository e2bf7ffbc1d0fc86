// Keys for classes: 1 labels the chosen images as the first class, 9 as the ninth, 0 as the tenth; with Shift, the next ten.
document.addEventListener("keydown", (event) => {
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
  const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable=true]");
  if (!digit || typing || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const place = (Number(digit[1]) + 9) % 10 + (event.shiftKey ? 10 : 0);
  window.__foo__.executeOperator("@selftrain/corrections/label_by_key", { place });
});
