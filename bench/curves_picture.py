"""The curves as a picture: CPU per 1,000 operations over the load, a field for each workload."""

from collections.abc import Mapping
from pathlib import Path


def draw(file: Path, found: Mapping[tuple[str, str, str], Mapping[str, float]]) -> None:
    """Writes the SVG: of `medians` of bench/curves.py; a point where something failed or was sent again is hollow.

    Needs matplotlib.
    """
    import matplotlib as mpl  # only who draws needs it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ramal"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    workloads = list(dict.fromkeys(workload for workload, _, _ in found))
    targets = list(dict.fromkeys(target for _, _, target in found))
    figure, fields = pyplot.subplots(
        1, len(workloads), figsize=(4.2 * len(workloads), 3.8), squeeze=False, layout="constrained"
    )
    for field, workload in zip(fields[0], workloads, strict=True):
        steps = list(dict.fromkeys(load for kind, load, _ in found if kind == workload))
        for color, target in enumerate(targets):
            rows = [(step, found[workload, step, target]) for step in steps if (workload, step, target) in found]
            names = [step for step, _ in rows]
            line = {"color": f"C{color}", "linewidth": 1}
            field.plot(names, [row["cpu"] for _, row in rows], linestyle=":", **line)
            field.plot(names, [row["cpu_corrected"] for _, row in rows], label=target, **line)
            for step, row in rows:
                whole = not (row["failed"] or row["resent"])
                face = f"C{color}" if whole else "white"
                field.plot([step], [row["cpu_corrected"]], "o", color=f"C{color}", markerfacecolor=face)
        field.set_title(workload)
        field.set_ylim(bottom=0)
        field.tick_params(axis="x", rotation=30)
        field.grid(axis="y", alpha=0.3)
    fields[0][0].set_ylabel("CPU-seconds per 1,000")
    fields[0][-1].legend(frameon=False, fontsize="small")
    figure.supxlabel("solid: corrected by the machine's speed; dotted: as measured; hollow: some failed or were resent")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
