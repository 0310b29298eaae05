"""The tables of a sweep in the memory of its driver: kept up to date by what it hears, not by reading.

Trials tell their statuses and epochs, analyses their rows. The files of the trials remain the truth: the tables are
made from them again whenever a driver has ended without writing its last ones.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from sweep.results.compact import SMALL, Survey, in_order, trial_row
from sweep.results.tables import Row, TableName, records, table_of, write_table
from sweep.spec import Plan
from sweep.store.kept import epochs_to_keep
from sweep.store.manifest import EpochRow
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import FROM_SCRATCH, Status


class LiveTables:
    """Plans, statuses, epochs and analysed layers of the trials that are not settled; the tables of those that are.

    Safe to use from several threads.
    """

    def __init__(self, sweep: SweepDir, seen: Survey) -> None:
        self._sweep, self._rank_of = sweep, sweep.ranking()
        self._lock, self._writing = threading.RLock(), threading.Lock()
        self._plans = {plan.trial_id: plan for plan, _ in seen.unsettled}
        self._statuses = {plan.trial_id: status for plan, status in seen.unsettled}
        self._rows = {plan.trial_id: trial_row(plan, status) for plan, status in seen.unsettled}
        self._epochs: dict[str, dict[int, Row]] = defaultdict(dict)
        self._layers: dict[str, dict[int, list[Row]]] = defaultdict(dict)
        open_trials = list(self._plans)
        self._settled: dict[TableName, pd.DataFrame] = {}
        for name in SMALL:
            table = seen.tables[name]
            mine = table["trial_id"].isin(open_trials)
            self._settled[name] = table[~mine]
            for row in _plain(table[mine]) if name != "trials" else ():
                self._add(name, row)
        self._changed: set[TableName] = set(SMALL)

    def plan(self, trial_id: str) -> Plan | None:
        """What was planned, of a trial that was not settled when this began or was reopened since."""
        with self._lock:
            return self._plans.get(trial_id)

    def status(self, trial_id: str) -> Status:
        """The last status heard of."""
        with self._lock:
            return self._statuses[trial_id]

    def statuses(self) -> Mapping[str, Status]:
        """The statuses of the trials that were not settled when this began or were reopened since."""
        with self._lock:
            return dict(self._statuses)

    def counts(self) -> Counter[str]:
        """How many trials are in each state, the settled ones included."""
        with self._lock:
            found = Counter[str](status.status for status in self._statuses.values())
            found.update(self._settled["trials"]["status"])
        return found

    def reopen(self, plan: Plan, status: Status) -> None:
        """A trial will run again; what earlier attempts left and set aside no longer counts."""
        with self._lock:
            for name, table in self._settled.items():
                self._settled[name] = table[table["trial_id"] != plan.trial_id]
            self._plans[plan.trial_id] = plan
            if status.reason == FROM_SCRATCH:
                self._epochs.pop(plan.trial_id, None)
                self._layers.pop(plan.trial_id, None)
            self.tell(plan.trial_id, status)
            self._changed |= set(SMALL)

    def tell(self, trial_id: str, status: Status) -> None:
        """A trial has taken on a status."""
        with self._lock:
            if (plan := self._plans.get(trial_id)) is not None:
                self._statuses[trial_id] = status
                self._rows[trial_id] = trial_row(plan, status)
                self._changed.add("trials")

    def read_again(self, trial_id: str) -> Status:
        """Take a trial's status and epochs from its files: its process has died, and may have had more to tell."""
        status = self._sweep.trial(trial_id).status()
        self.read_epochs(trial_id)  # first: a finished trial with all its rows analysed is settled
        self.tell(trial_id, status)
        return status

    def read_epochs(self, trial_id: str) -> None:
        """Take a trial's epochs from its file: it has failed, perhaps before it could tell of its last one."""
        for row in self._sweep.trial(trial_id).epochs():
            self.epoch(trial_id, row)

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        """A trial has finished an epoch."""
        with self._lock:
            if trial_id in self._plans:
                self._add("epochs", {"trial_id": trial_id} | row)
                self._changed.add("epochs")

    def analysed(self, trial_id: str, step: int, rows: Sequence[Row]) -> None:
        """A checkpoint of a trial has been analysed."""
        with self._lock:
            if (plan := self._plans.get(trial_id)) is not None:
                expected = dict(zip(plan.layers, plan.expected, strict=True))
                common = {"trial_id": trial_id, "step": step}
                self._layers[trial_id][step] = [row | common | {"expected": expected.get(row["layer"])} for row in rows]
                self._changed |= {"layers", "trials"}

    def unanalysed(self) -> list[tuple[str, int]]:
        """Ids of finished trials with the steps of their kept checkpoints that have not been analysed."""
        with self._lock:
            finished = [trial_id for trial_id in self._plans if self._statuses[trial_id].status == "finished"]
            return [
                (trial_id, step)
                for trial_id in finished
                for step in sorted(self._kept_steps(trial_id) - self._layers.get(trial_id, {}).keys())
            ]

    def tables(self) -> dict[TableName, pd.DataFrame]:
        """The tables as they are now, sorted."""
        with self._lock:
            rows: dict[TableName, list[Row]] = {
                "epochs": [row for epochs in self._epochs.values() for row in epochs.values()],
                "layers": [row for trial_id in self._layers for row in self._layer_rows(trial_id)],
                "trials": [row | {"settled": self._is_settled(trial_id)} for trial_id, row in self._rows.items()],
            }
            settled = dict(self._settled)
        tables = {
            name: pd.concat([frame for frame in (settled[name], table_of(name, rows[name])) if len(frame)])
            if rows[name] or len(settled[name]) else table_of(name, [])
            for name in SMALL
        }  # fmt: skip
        return in_order(tables, self._rank_of)

    def write(self) -> dict[TableName, pd.DataFrame]:
        """Write the tables that have changed, and return all; what is settled then takes less memory."""
        with self._writing:
            return self._write()

    def _write(self) -> dict[TableName, pd.DataFrame]:
        with self._lock:
            changed, self._changed = self._changed, set()
        tables = self.tables()
        try:
            for name in SMALL:
                if name in changed:
                    write_table(self._sweep.path, name, tables[name])
        except BaseException:
            with self._lock:
                self._changed |= changed
            raise
        self._fold(tables)
        return tables

    @property
    def changed(self) -> bool:
        """Whether there is something that `write` has not written."""
        with self._lock:
            return bool(self._changed)

    def _fold(self, tables: Mapping[TableName, pd.DataFrame]) -> None:
        """Move the rows of settled trials from dictionaries to tables."""
        trials = tables["trials"]
        settled = set(trials.loc[trials["settled"].fillna(False), "trial_id"])
        with self._lock:
            done = {trial_id for trial_id in settled & set(self._plans) if self._is_settled(trial_id)}
            if not done:
                return
            for name in SMALL:
                fresh = tables[name]
                more = fresh[fresh["trial_id"].isin(done)]
                self._settled[name] = pd.concat([self._settled[name], more]) if len(self._settled[name]) else more
            for trial_id in done:
                for held in (self._plans, self._rows, self._epochs, self._layers):  # who asks late still gets a status
                    held.pop(trial_id, None)

    def _layer_rows(self, trial_id: str) -> Iterable[Row]:
        epoch_of = {row["step"]: row["epoch"] for row in self._epochs.get(trial_id, {}).values()}
        for step, rows in sorted(self._layers[trial_id].items()):
            yield from (row | {"epoch": epoch_of.get(step)} for row in rows)

    def _is_settled(self, trial_id: str) -> bool:
        status = self._statuses[trial_id]
        if status.status != "finished":
            return status.status == "excluded"
        steps = self._kept_steps(trial_id)
        return bool(steps) and steps <= self._layers.get(trial_id, {}).keys()

    def _kept_steps(self, trial_id: str) -> set[int]:
        kept = set(epochs_to_keep(self._plans[trial_id].spec.recipe.epochs))
        return {row["step"] for row in self._epochs.get(trial_id, {}).values() if row["epoch"] in kept}

    def _add(self, name: TableName, row: Row) -> None:
        if name == "epochs":
            self._epochs[row["trial_id"]][row["epoch"]] = row
        else:
            self._layers[row["trial_id"]].setdefault(row["step"], []).append(row)


def _plain(table: pd.DataFrame) -> list[Row]:
    """A table's rows as plain values, None where there is none."""
    return records(table.astype(object).where(table.notna(), None))
