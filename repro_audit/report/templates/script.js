for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
addEventListener("beforeprint", () => {
  for (const panel of document.querySelectorAll("details:not([open])")) {
    panel.open = panel.toPrint = true;
  }
});
addEventListener("afterprint", () => {
  for (const panel of document.querySelectorAll("details")) {
    if (panel.toPrint) panel.open = panel.toPrint = false;
  }
});
