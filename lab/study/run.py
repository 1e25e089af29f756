"""Runs the cells of a grid in several processes. Each cell writes a file; a cell whose file is there is not run."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from graft.progress import Advance
from lab.study.cell import Result
from lab.study.plan import Cell
from lab.study.worker import Worker
from lab.study.workplace import Workplace
from runtime.errors import GraftError


def run_cells(cells: Sequence[Cell], place: Workplace, jobs: int, advance: Advance) -> list[Result]:
    """The result of every cell, in their order; only those without a file are run, `jobs` at a time.

    GraftError when a process is killed.
    """
    paths = {place.result_path(cell): cell for cell in cells}
    missing = [cell for path, cell in paths.items() if not path.exists()]
    done = len(cells) - len(missing)
    advance(done, len(cells))
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(missing)), context, Worker.start, (place,)) as pool:
            try:
                for finished in as_completed([pool.submit(Worker.run, cell) for cell in missing]):
                    finished.result()
                    done += 1
                    advance(done, len(cells))
            except BrokenProcessPool:
                fewer = f"--jobs than {jobs}: what is finished is not learnt again" if jobs > 1 else "--events"
                raise GraftError(
                    f"a learner's process was killed, most often for want of memory; start again with fewer {fewer}"
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [_result(cell, place) for cell in cells]


def _result(cell: Cell, place: Workplace) -> Result:
    result = Result.model_validate_json(place.result_path(cell).read_text("utf-8"))
    return result.model_copy(update={"variant": cell.variant.name})
