// Puts the sections together. One that fails says so in its place and leaves the others alone.

function attempted(build, id, title) {
  try {
    return build();
  } catch (error) {
    console.error(`section ${id}`, error);
    return card(id, title, note(`This part could not be drawn: ${error.message}`));
  }
}

function lookBar() {
  const host = element("div", { class: "controls look", id: "look" });
  const options = readable.map((evaluation) => [evaluation.name, nameOf(evaluation)]);
  const byName = (name) => readable.find((evaluation) => evaluation.name === name) ?? null;
  watchers.push(() => host.replaceChildren(
    labelled("Looking at", select("evaluation", options, choice.now?.name ?? "", (name) => choose(byName(name), choice.base))),
    labelled("compared with", select("compared with", [["", "nothing"], ...options], choice.base?.name ?? "", (name) => choose(choice.now, byName(name))))));
  return host;
}

function build() {
  const looks = readable.length
    ? [element("div", null, lookBar(), element("div", { class: "columns" }, attempted(heatSection, "heatmap", "Subject × level"),
      element("div", null, attempted(changesSection, "changes", "Problems gained and lost"), attempted(lengthSection, "lengths", "Response lengths"))),
    attempted(samplesSection, "samples", "Generations"))]
    : [];
  const top = attempted(overview, "overview", "Overview");
  const rest = [
    attempted(accuracySection, "accuracy", "Evaluation"), attempted(curvesSection, "curves", "Training"), ...looks,
    attempted(timelineSection, "timeline", "Time line"), attempted(checkpointSection, "checkpoints", "Checkpoints"),
    attempted(settingsSection, "settings", "Configuration"), attempted(environmentSection, "environment", "Environment"),
  ];
  const links = [["accuracy", "Evaluation"], ["curves", "Training"], ["look", "Subjects"], ["samples", "Generations"],
    ["timeline", "Time line"], ["checkpoints", "Checkpoints"], ["settings", "Configuration"], ["environment", "Environment"]]
    .filter(([id]) => readable.length || !["look", "samples"].includes(id));
  const navigation = element("nav", { class: "sections", "aria-label": "sections" }, ...links.map(([id, text]) => element("a", { href: `#${id}` }, text)));
  document.getElementById("page").replaceChildren(...[top].flat().filter(Boolean), navigation, ...rest);
  if (readable.length) chooseFirst();
  document.documentElement.dataset.drawn = "yes";
}

build();
