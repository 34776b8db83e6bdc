"""Results out: lists, details, pictures, maps, DICOM objects, marks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse

from scrd.serve import schemas
from scrd.serve.access import Asking, Readers, TheService, Writers
from scrd.serve.results import Filter, Sort
from scrd.serve.service import Service
from scrd.serve.uploads import Refused

router = APIRouter(prefix="/v1", tags=["results"], dependencies=[Readers])

Slice = Annotated[int, Query(alias="slice", ge=0, description="Image of a series, from 0.")]
_RAW: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}


@router.get("/results", response_model=schemas.Page)
def list_results(
    service: TheService,
    flag: bool | None = None,
    refused: bool | None = None,
    doubted: bool | None = None,
    model: str | None = None,
    job: str | None = None,
    marked: Literal["right", "wrong", "any", "none"] | None = None,
    since: float | None = None,
    sort: Sort = "newest",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """Results. For names there is the search: an address is no place for them."""
    wanted = Filter(flag, refused, doubted, model, job, marked, since)
    total, rows = service.results.page(wanted, sort, offset, limit)
    return {"total": total, "offset": offset, "results": rows}


@router.post("/results/search", response_model=schemas.Page)
def search(body: schemas.Search, service: TheService) -> Any:
    """The same, and by a part of the name."""
    asked = body.model_dump(exclude={"sort", "offset", "limit"})
    total, rows = service.results.page(Filter(**asked), body.sort, body.offset, body.limit)
    return {"total": total, "offset": body.offset, "results": rows}


@router.get("/results/{result}", response_model=schemas.Result)
def get_result(result: str, service: TheService) -> Any:
    """One result, image by image."""
    found = service.results.get(result)
    detail = found["detail"]
    series = detail["series"]
    if series is not None:
        series = series | {"volume": series["affine"] is not None}
    return found | {
        "per_image": detail["images"],
        "series": series,
        "study": detail["study"],
    }


@router.get("/results/{result}/thumbnail.jpg", response_class=FileResponse)
async def thumbnail(result: str, service: TheService) -> Any:
    """The image with the highest score, small."""
    found = service.results.get(result)
    scores = [image.get("score") for image in found["detail"]["images"]]
    most = max(range(len(scores)), key=lambda i: -1e300 if scores[i] is None else scores[i])
    path = await _drawn(service, found, "thumbnail", most, "jpg")
    return FileResponse(path, media_type="image/jpeg")


@router.get("/results/{result}/overlay.png", response_class=FileResponse)
async def overlay(result: str, service: TheService, number: Slice = 0) -> Any:
    """The image beside itself under its anomaly map."""
    found = service.results.get(result)
    path = await _drawn(service, found, "overlay", number, "png", maps=True)
    return FileResponse(path, media_type="image/png")


@router.get("/results/{result}/source.png", response_class=FileResponse)
async def source(
    result: str,
    service: TheService,
    number: Slice = 0,
    low: Annotated[float | None, Query(description="Grey value shown as black.")] = None,
    high: Annotated[float | None, Query(description="Grey value shown as white.")] = None,
) -> Any:
    """The image as it was sent, windowed to 8 bits."""
    found = service.results.get(result)
    window = None
    if low is not None or high is not None:
        if low is None or high is None or not low < high:
            raise Refused(422, "a window has both ends, low below high")
        window = [low, high]
    name = "source" if window is None else f"source-{low:g}-{high:g}"
    path = await _drawn(service, found, "source", number, "png", name=name, window=window)
    return FileResponse(path, media_type="image/png")


@router.get("/results/{result}/view.bin", response_class=FileResponse, responses=_RAW)
async def view(result: str, service: TheService, number: Slice = 0) -> Any:
    """What the page shows of an image: grey values and map, see `scrd.serve.drawing.view`."""
    found = service.results.get(result)
    path = await _drawn(service, found, "view", number, "bin", maps=True)
    return FileResponse(path, media_type="application/octet-stream")


@router.get("/results/{result}/map.npy", response_class=FileResponse, responses=_RAW)
async def raw_map(result: str, service: TheService, number: Slice = 0) -> Any:
    """The anomaly map in the geometry of the image, (H, W), float32."""
    found = service.results.get(result)
    path = await _drawn(service, found, "map", number, "npy", maps=True)
    return FileResponse(path, media_type="application/octet-stream", filename="map.npy")


@router.get("/results/{result}/map.nii.gz", response_class=FileResponse, responses=_RAW)
async def volume_map(result: str, service: TheService) -> Any:
    """The anomaly maps of an even volume, in its geometry."""
    found = service.results.get(result)
    path = await service.artist.draw(
        "volume",
        service.cached(found["job"], f"{found['id']}.nii.gz"),
        fingerprint=found["fingerprint"],
        detail=found["detail"],
        folder=str(service.store.uploads / found["job"]),
        maps=str(_maps(service, found)),
    )
    return FileResponse(path, media_type="application/gzip", filename="map.nii.gz")


@router.get("/results/{result}/dicom/{kind}", response_class=FileResponse, responses=_RAW)
async def dicom(result: str, kind: Literal["sr", "seg", "sc"], service: TheService) -> Any:
    """A DICOM object: the report of the study, segmentations or overlays of the series.

    One file, or a zip where there are several.
    """
    found = service.results.get(result)
    detail = found["detail"]
    if found["shadow"]:
        raise Refused(404, "of a model on trial there is no verdict, and so no object")
    if detail["series"] is None or detail["series"]["format"] != "DICOM":
        raise Refused(404, "only of DICOM images are DICOM objects made")
    study = detail["study"]["tag"]
    path = await service.artist.draw(
        "dicom",
        service.cached(found["job"], f"{found['id']}-{kind}"),
        fingerprint=found["fingerprint"],
        details=service.results.of_study(found["job"], study, False),
        folder=str(service.store.uploads / found["job"]),
        maps=str(_maps(service, found)),
        kind=kind,
        tag=study if kind == "sr" else detail["series"]["tag"],
    )
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    return FileResponse(
        path,
        media_type="application/zip" if zipped else "application/dicom",
        filename=f"{kind}.zip" if zipped else f"{kind}.dcm",
    )


@router.put("/results/{result}/mark", status_code=204, dependencies=[Writers])
def put_mark(result: str, body: schemas.MarkBody, service: TheService, who: Asking) -> Response:
    """Mark a result as right or wrong. Nothing is trained on that."""
    service.marks.put(result, body.verdict, body.comment, who.name)
    return Response(status_code=204)


@router.delete("/results/{result}/mark", status_code=204, dependencies=[Writers])
def delete_mark(result: str, service: TheService) -> Response:
    """Take a mark away."""
    service.marks.remove(result)
    return Response(status_code=204)


@router.get("/marks.csv", response_class=PlainTextResponse)
def marks_csv(service: TheService) -> Response:
    """All marks."""
    return Response(
        service.marks.csv(),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="marks.csv"'},
    )


async def _drawn(
    service: Service,
    found: dict[str, Any],
    what: str,
    number: int,
    suffix: str,
    *,
    name: str | None = None,
    maps: bool = False,
    **arguments: Any,
) -> Path:
    """The file of a picture of one image; what the drawing needs not of the others stays here."""
    images = found["detail"]["images"]
    if number >= len(images):
        raise Refused(404, f"the result has {len(images)} images, counted from 0")
    if maps:
        arguments["maps"] = str(_maps(service, found))
    return await service.artist.draw(
        what,
        service.cached(found["job"], f"{found['id']}-{number}-{name or what}.{suffix}"),
        fingerprint=found["fingerprint"],
        detail={**found["detail"], "images": [images[number]]},
        number=0,
        folder=str(service.store.uploads / found["job"]),
        **arguments,
    )


def _maps(service: Service, found: dict[str, Any]) -> Path:
    name = "shadow.npy" if found["shadow"] else "maps.npy"
    folder: Path = service.store.results / str(found["job"])
    return folder / name
