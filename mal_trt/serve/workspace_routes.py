"""The routes of the page: pictures, their objects, uploads and exports. A change is answered with what there is now."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from mal_trt.base.errors import InputError, RunError
from mal_trt.serve.annotations import Annotation, shown
from mal_trt.serve.answers import OtherWork, error_answer
from mal_trt.serve.desk import Desk
from mal_trt.serve.drawing import brushed
from mal_trt.serve.picture_files import Picture
from mal_trt.serve.state import state_of
from mal_trt.serve.workspace import SHOWN, SORTS, Workspace
from mal_trt.serve.workspace_requests import TOKEN, Brushed, Change, Create, ExportRequest, Named, Preview, Step, box_in
from mal_trt.writers.formats import FORMATS, chosen
from mal_trt.writers.options import Options

router = APIRouter(prefix="/workspace", tags=["page"])
Id = Annotated[int, Path(ge=1, le=2**53)]
Key = Annotated[str, Query(max_length=64)]
MOST_ROWS = 200
FRESH = {"cache-control": "no-store"}
KEPT = {"cache-control": "private, max-age=300"}


async def desk_of(request: Request) -> Desk:
    """The desk of the server that a request came to."""
    return state_of(request).desk


async def work_of(request: Request, mal_trt_work: Annotated[str, Header(max_length=64)] = "") -> Workspace:
    """The open work of that server; it is opened if it is not yet. OtherWork if the request names another's key: by the
    same numbers this one has other pictures and objects."""
    work = await state_of(request).desk.work()
    if mal_trt_work not in ("", work.key):
        raise OtherWork(f"the server is at other work now, {work.name}; load the page again, or start the first again")
    return work


OpenDesk = Annotated[Desk, Depends(desk_of)]
Work = Annotated[Workspace, Depends(work_of)]


@router.get("", response_class=JSONResponse, summary="Classes, formats, and how far the work is")
async def workspace(request: Request, desk: OpenDesk, work: Work) -> Response:
    """Asking for it lets masks that are missing be drawn."""
    state = state_of(request)
    desk.draw_on()
    about = {
        **await desk.in_pool(work.summary),
        "model": state.inference.path.name,
        "thresholds": state.inference.predictor.thresholds if not state.inference.predictor.tight else None,
        "formats": await desk.in_pool(_formats),
        "limits": {"body": state.settings.limits.body, "pixels": state.settings.limits.pixels},
    }
    return JSONResponse(about, headers=FRESH)


@router.get("/revision", response_class=JSONResponse, summary="Whether anything has changed")
async def revision(work: Work) -> Response:
    """A number that is another one after every change; `GET /workspace` has it too."""
    return JSONResponse({"revision": work.journal.revision}, headers=FRESH)


@router.get("/pictures", response_class=JSONResponse, summary="Numbers of the pictures, in an order")
async def pictures(
    desk: OpenDesk,
    work: Work,
    shown: Annotated[str, Query(pattern=f"^({'|'.join(SHOWN)})$")] = "all",
    sort: Annotated[str, Query(pattern=f"^({'|'.join(SORTS)})$")] = "folder",
    search: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """shown: all, or those with an object that nobody decided on. sort: as in the folder, or the worst mask first."""
    return JSONResponse({"ids": await desk.in_pool(work.order, shown, sort, search)}, headers=FRESH)


@router.get("/pictures/rows", response_class=JSONResponse, summary="What a list says of some pictures")
async def rows(desk: OpenDesk, work: Work, ids: Annotated[str, Query(pattern=r"^\d{1,15}(,\d{1,15})*$")]) -> Response:
    """ids: at most 200 numbers with commas between."""
    wanted = [int(id) for id in ids.split(",")]
    if len(wanted) > MOST_ROWS:
        raise InputError(f"{len(wanted)} pictures; at most {MOST_ROWS} at once")
    return JSONResponse({"rows": await desk.in_pool(work.rows, wanted)}, headers=FRESH)


@router.get("/pictures/{id}", response_class=JSONResponse, summary="One picture with its objects")
async def picture(desk: OpenDesk, work: Work, id: Id) -> Response:
    """Masks that are missing are null; `POST .../masks` has them drawn."""
    return await _picture(desk, work, id)


@router.get("/pictures/{id}/file", summary="One picture, as a browser shows it pixel by pixel")
async def picture_file(desk: OpenDesk, work: Work, id: Id, key: Key = "") -> Response:
    """JPEG or PNG. With the key of this work it may be kept by a browser: other work has other pictures by the same
    numbers."""
    content, kind = await desk.in_pool(work.files.shown, await desk.in_pool(work.files.measured, id))
    return Response(content, media_type=kind, headers=KEPT if key == work.key else FRESH)


@router.get("/pictures/{id}/small", summary="A small copy of one picture")
async def small(desk: OpenDesk, work: Work, id: Id, key: Key = "") -> Response:
    """JPEG, at most 160 pixels long; `key` as for the file."""
    content = await desk.in_pool(work.files.small, await desk.in_pool(work.files.measured, id))
    return Response(content, media_type="image/jpeg", headers=KEPT if key == work.key else FRESH)


@router.post("/pictures/{id}/masks", response_class=JSONResponse, summary="Draw what is missing in one picture")
async def masks(desk: OpenDesk, work: Work, id: Id) -> Response:
    """The picture with its objects, 32 more of them with masks; to be asked until none is missing."""
    await desk.draw_missing(id)
    return await _picture(desk, work, id)


@router.post("/pictures/{id}/preview", response_class=JSONResponse, summary="A mask to look at, which is not kept")
async def preview(desk: OpenDesk, work: Work, id: Id, body: Preview) -> Response:
    """Counts of COCO's RLE, area and score."""
    row = await desk.in_pool(work.files.measured, id)
    one = Annotation(0, id, *box_in(body.box, row), category=0, threshold=body.threshold)
    (drawn,) = await desk.drawn(row, [one])
    about = {"counts": drawn.counts, "area": drawn.area, "score": drawn.score}
    return JSONResponse(about, headers=FRESH)


@router.post("/pictures/{id}/objects", response_class=JSONResponse, summary="A new object: its mask is drawn")
async def create(desk: OpenDesk, work: Work, id: Id, body: Create) -> Response:
    """The picture with its objects, and the new one's number."""
    row = await desk.in_pool(work.files.measured, id)
    taken = await desk.in_pool(work.journal.step_of, body.token)
    made = taken[1][0] if taken else None
    if not taken:
        one = Annotation(0, id, *box_in(body.box, row), category=body.category, threshold=body.threshold)
        await desk.in_pool(work.check_category, body.category)
        (drawn,) = await desk.drawn(row, [one])
        made = await desk.in_pool(work.create, drawn, body.token)
    return await _picture(desk, work, id, made=made)


@router.patch("/objects/{id}", response_class=JSONResponse, summary="Change an object: its mask follows")
async def change(desk: OpenDesk, work: Work, id: Id, body: Change) -> Response:
    """A mask drawn by hand stays as it is, unless `redraw` is asked for."""
    before = await desk.in_pool(work.annotation, id)
    if await desk.in_pool(work.journal.taken, body.token):
        return await _picture(desk, work, before.picture)
    fields = body.model_fields_set
    row = await desk.in_pool(work.files.measured, before.picture)
    box = box_in(body.box, row) if body.box is not None else before.box
    threshold = body.threshold if "threshold" in fields else before.threshold
    moved = box != before.box or threshold != before.threshold
    drawn: Annotation | None = None
    if body.redraw or (moved and before.source != "brush"):
        (drawn,) = await desk.drawn(row, [replace(before.at(box), threshold=threshold)])

    def changed(now: Annotation) -> Annotation:
        if drawn is not None:
            now = now.at(drawn.box).masked(drawn)
        elif body.box is not None:
            now = now.at(box)
        return replace(now, category=body.category or now.category, state=body.state or now.state)

    what = "redraw" if body.redraw else "move" if body.box is not None else "change"
    await desk.in_pool(work.change, id, what, changed, body.token)
    return await _picture(desk, work, before.picture)


@router.put("/objects/{id}/mask", response_class=JSONResponse, summary="A mask drawn by hand")
async def brush(desk: OpenDesk, work: Work, id: Id, body: Brushed) -> Response:
    """It takes the place of the object's mask."""
    before = await desk.in_pool(work.annotation, id)
    if not await desk.in_pool(work.journal.taken, body.token):
        row = await desk.in_pool(work.files.measured, before.picture)
        new = await desk.in_pool(brushed, before, body.counts, row.height, row.width)

        def changed(now: Annotation) -> Annotation:
            return now.masked(new)

        await desk.in_pool(work.change, id, "brush", changed, body.token)
    return await _picture(desk, work, before.picture)


@router.delete("/objects/{id}", response_class=JSONResponse, summary="Take an object away")
async def delete(
    desk: OpenDesk,
    work: Work,
    id: Id,
    token: Annotated[str | None, Query(min_length=8, max_length=64, pattern=TOKEN)] = None,
) -> Response:
    """The picture without it. token: as for other changes."""
    taken = await desk.in_pool(work.journal.step_of, token)
    picture = taken[0] if taken else (await desk.in_pool(work.delete, id, token)).picture
    return await _picture(desk, work, picture)


@router.post("/pictures/{id}/accept", response_class=JSONResponse, summary="Accept all that nobody decided on")
async def accept(desk: OpenDesk, work: Work, id: Id, body: Step) -> Response:
    """The picture counts as looked at, whether it has objects or not."""
    await desk.in_pool(work.files.measured, id)
    if not await desk.in_pool(work.journal.taken, body.token):
        await desk.in_pool(work.accept, id, body.token)
    return await _picture(desk, work, id)


@router.post("/pictures/{id}/undo", response_class=JSONResponse, summary="Take back the last step in a picture")
async def undo(desk: OpenDesk, work: Work, id: Id, body: Step) -> Response:
    """409 if there is none."""
    return await _again(desk, work, id, body, "undo")


@router.post("/pictures/{id}/redo", response_class=JSONResponse, summary="Take the step that was undone once more")
async def redo(desk: OpenDesk, work: Work, id: Id, body: Step) -> Response:
    """409 if there is none."""
    return await _again(desk, work, id, body, "redo")


@router.post("/categories", response_class=JSONResponse, summary="A new class")
async def add_category(desk: OpenDesk, work: Work, body: Named) -> Response:
    """Its number; that of the class of this name, if there is one."""
    return JSONResponse({"number": await desk.in_pool(work.add_category, body.name)}, headers=FRESH)


@router.patch("/categories/{number}", response_class=JSONResponse, summary="Rename a class")
async def rename_category(desk: OpenDesk, work: Work, number: Id, body: Named) -> Response:
    """The class keeps its id."""
    await desk.in_pool(work.rename_category, number, body.name)
    return JSONResponse({"number": number}, headers=FRESH)


@router.post("/uploads", response_class=JSONResponse, summary="Add a picture: the body is its file")
async def upload(
    request: Request, desk: OpenDesk, work: Work, name: Annotated[str, Query(min_length=1, max_length=255)]
) -> Response:
    """name: what it is called; it is kept in the workspace, and nowhere else. The picture's number."""
    content = await request.body()
    return JSONResponse({"id": await desk.in_pool(work.files.add, name, content)}, 201, headers=FRESH)


@router.post("/exports", response_class=JSONResponse, summary="Write the masks in a format")
async def export(desk: OpenDesk, work: Work, body: ExportRequest) -> Response:
    """409 while masks are still being drawn; the answer says what the format could not hold, and where the file is."""
    (format,) = chosen([body.format])
    options = Options(simplify=body.simplify)
    if undrawn := await desk.in_pool(work.undrawn):
        desk.draw_on()
        text = f"the masks of {undrawn:,} boxes are still being drawn; try again when they are there"
        return error_answer(409, text, retry_after=2)
    try:
        number, done = await desk.exported(format, options, body.accepted)
    except RunError as error:
        return error_answer(409, str(error))
    about = {"number": number, "file": done.file.name, "bytes": done.file.stat().st_size, "written": done.written}
    rest = {"left_out": done.left_out, "undrawn": done.undrawn, "told": done.losses}
    return JSONResponse({**about, **rest}, headers=FRESH)


@router.get("/exports/{number}", summary="The file of an export")
async def exported(desk: OpenDesk, work: Work, number: Id) -> Response:
    """The last few exports are kept."""
    file = await desk.in_pool(work.exported, number)
    return FileResponse(file, filename=file.name, media_type="application/octet-stream", headers=FRESH)


async def _picture(desk: Desk, work: Workspace, id: int, **more: Any) -> Response:
    row = await desk.in_pool(work.files.measured, id)
    return JSONResponse({**await desk.in_pool(_about, work, row), **more}, headers=FRESH)


def _about(work: Workspace, row: Picture) -> dict[str, Any]:
    done, undone = work.journal.history(row.id)
    return {
        "id": row.id,
        "name": row.name,
        "width": row.width,
        "height": row.height,
        "looked": bool(work.files.row(row.id).looked),
        "objects": [shown(one) for one in work.journal.annotations(row.id)],
        "step": work.journal.last_step(row.id),
        "undo": len(done),
        "redo": len(undone),
    }


async def _again(desk: Desk, work: Workspace, id: int, body: Step, what: str) -> Response:
    await desk.in_pool(work.files.measured, id)
    if not await desk.in_pool(work.journal.taken, body.token):
        step = work.journal.undo if what == "undo" else work.journal.redo
        if not await desk.in_pool(step, id, body.token):
            return error_answer(409, f"nothing to {what} in this picture")
        desk.draw_on()
    return await _picture(desk, work, id)


def _formats() -> list[dict[str, Any]]:
    """Those that can be written here."""
    found = []
    for name, format in FORMATS.items():
        try:
            format.check()
        except InputError:
            continue
        found.append({"name": name, "ending": format.ending or ".zip"})
    return found
