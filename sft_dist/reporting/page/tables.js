// Checkpoints, configuration and environment, as they stand in the run directory.

function checkpointSection() {
  const rows = runs.flatMap((run) => run.checkpoints.map((checkpoint) => {
    const scored = run.evaluations.find((e) => e.series === 0 && e.step === checkpoint.step);
    return [
      isOne ? checkpoint.name : `${run.name} / ${checkpoint.name}`,
      { number: scored ? percent(scored.rates.accuracy) : DASH },
      when(checkpoint.written), { number: bytes(checkpoint.num_bytes) },
      element("div", { class: "mono" }, ...fingerprints(checkpoint)),
      checkpoint.faults.length ? element("span", { class: "down" }, checkpoint.faults.slice(0, 3).join("; "))
        : checkpoint.has_optimizer_state ? "can be resumed" : "weights only",
    ];
  }));
  return card("checkpoints", "Checkpoints", rows.length
    ? [table(["", { number: "accuracy" }, "saved", { number: "size" }, "fingerprints", "state"], rows),
      note("Weights: over all tensors, as computed when they were evaluated; files: SHA-256 of the manifest. Sizes are checked here, contents when a run is resumed.")]
    : note("No checkpoint is here."));
}

function fingerprints(checkpoint) {
  const lines = checkpoint.fingerprint ? [["weights", checkpoint.fingerprint]] : [];
  lines.push(...Object.entries(checkpoint.sha256));
  return lines.map(([name, digest]) => element("div", { title: digest }, `${name} ${digest.slice(0, 16)}`));
}

function settingsSection() {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  if (!names.length) return card("settings", "Configuration", note("config.yaml is missing or cannot be read."));
  const host = element("div");
  const isChanged = (name) => (isOne ? runs[0].changed.includes(name) : differing().includes(name));
  const draw = (all) => {
    const shown = names.filter((name) => all || isChanged(name));
    host.replaceChildren(shown.length
      ? table(isOne ? null : ["", ...runs.map((run) => run.name)],
        shown.map((name) => [element("code", null, `--${name}`), ...runs.map((run) => plain(run.settings[name]))]),
        (index) => ({ class: isChanged(shown[index]) ? "changed" : null }))
      : note(isOne ? "Nothing differs from the defaults." : "Nothing differs."));
  };
  const all = element("input", { type: "checkbox", on: { change: () => draw(all.checked) } });
  draw(false);
  return card("settings", "Configuration", element("div", { class: "controls" },
    labelled(isOne ? "All settings, not only those that differ from the defaults" : "All settings, not only those that differ", all)), host);
}

function environmentSection() {
  const flat = (environment) => Object.entries(environment).flatMap(([name, value]) => {
    if (name === "command") return [[name, (Array.isArray(value) ? value : [value]).join(" ")]];
    return value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.entries(value).filter(([, v]) => v !== null).map(([key, v]) => [key, plain(v)]) : [[name, plain(value)]];
  });
  const columns = runs.map((run) => new Map(flat(run.environment)));
  const names = [...new Set(columns.flatMap((column) => [...column.keys()]))];
  return card("environment", "Environment", names.length
    ? table(isOne ? null : ["", ...runs.map((run) => run.name)], names.map((name) => [name, ...columns.map((column) => column.get(name) ?? DASH)]))
    : note("environment.json is missing or cannot be read."));
}
