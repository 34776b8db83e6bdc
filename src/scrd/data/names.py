"""What names of folders and files say: a split, normal, abnormal, a mask.

Words are lists of what public data sets use. A word that is on none says nothing, and no image is
trained on as normal because of a word alone: see :mod:`scrd.data.layout`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SPLITS = {
    "train": "train training trainset trainingset traindata trainingdata imagestr",
    "test": "test testing testset testingset testdata testingdata tests imagests",
    "val": "val valid validate validation validationset validset valset dev devset eval imagesval",
}
_NORMAL = (
    "normal normals normales normale normali normaux normaal normala normalny normalne normalt "
    "normalbefund good ok okay healthy healthycontrol healthycontrols hc control controls negative "
    "negatives neg negativ negativo negatif nofinding nofindings clean unremarkable intact "
    "nominal regular inlier inliers defectfree anomalyfree diseasefree lesionfree unauffallig "
    "ohnebefund obefund gesund gesunde sain saine sains sano sana sanos sani saudavel gezond "
    "frisk friska rask zdrowy zdrowe terve норма нормальный нормальные здоровый "
    "здоровые 正常 健康 良品 정상"
)
_ABNORMAL = (
    "anomaly anomalies anomalous anomalie anomalien anomalia anormales anormaux ng bad defect "
    "defects defective faulty broken crack damaged fail failed outlier outliers tumor tumors "
    "tumour tumours lesion lesions lesional cancer cancers carcinoma malignant benign disease "
    "diseased ill sick patho pathological pathologic pathology positive positives pos pneumonia "
    "covid covid19 tuberculosis tb fracture fractures fractured nodule nodules glioma meningioma "
    "pituitary melanoma hemorrhage haemorrhage bleeding stroke edema oedema effusion opacity "
    "lungopacity krank auffallig pathologisch malade enfermo malato ziek opacities infected "
    "unhealthy notnormal nonnormal notok nok патология 异常 異常 不良品 비정상"
)
_LOUD = re.compile("abnorm|anorm|anomal|pneumonia|defective|pathol|unhealthy|異常|异常")
_MASKS = (
    "mask masks maske masken masque masques label labels labelmap labelmaps labelstr labelsts seg "
    "segs segmentation segmentations segmented groundtruth groundtruths gt gts gtmask gtmasks "
    "annotation annotations annotated annot roi rois lesionmask lesionmasks binarymask"
)
_FILLERS = (
    "class label image images img imgs case cases scan scans patient patients data xray xrays mri "
    "mris ct cts set slices slice only folder subjects subject all"
)
_MASK_FILE = re.compile(
    r"[ _.-](?:(?:lesion|tumou?r|gt|manual|binary)[ _-]?)?"
    r"(?:masks?|mask[ _-]?\d+|segmentations?|segs?|seg[ _-]?\d+|labels?|labelmap|gt|groundtruth|"
    r"ground[_-]truth|annotations?|roi)(?:[ _-]\d{1,2})?$"
)


def _plain(name: str) -> str:
    bare = unicodedata.normalize("NFKD", name.casefold())
    return "".join(c for c in bare if not unicodedata.combining(c))


def _words(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


_SPLIT_OF = {word: split for split, text in _SPLITS.items() for word in _words(text)}
_IS_NORMAL, _IS_ABNORMAL, _IS_MASKS = _words(_NORMAL), _words(_ABNORMAL), _words(_MASKS)
_SAY_NOTHING = _words(_FILLERS)


@lru_cache(4096)
def split_of(folder: str) -> str | None:
    """The split, "train", "test" or "val", where a name says so in any of the usual spellings."""
    return _SPLIT_OF.get("".join(re.findall(r"\w", _plain(folder))).replace("_", ""))


@lru_cache(4096)
def is_normal(folder: str) -> bool:
    """Whether a name is one that normal images are kept under, such as "good", "OK", "no tumor"."""
    tokens = _tokens(folder)
    joined = "".join(tokens)
    if len(tokens) > 1 and tokens[0] in ("no", "non", "without", "ohne", "sans", "sin", "keine"):
        rest = tokens[1:]
        return not ({"not", "no", "non"} & set(rest)) and "".join(rest) not in _IS_NORMAL
    if any(joined.startswith(no) and joined[len(no) :] in _IS_ABNORMAL for no in ("no", "non")):
        return True
    return joined in _IS_NORMAL and not _LOUD.search(_plain(folder))


@lru_cache(4096)
def is_abnormal(folder: str) -> bool:
    """Whether a name is one that abnormal images are kept under, such as "NG" or "pneumonia"."""
    if is_normal(folder):
        return False
    tokens = _tokens(folder)
    joined = "".join(tokens)
    if tokens and tokens[0] in ("not", "non", "no") and "".join(tokens[1:]) in _IS_NORMAL:
        return True
    return joined in _IS_ABNORMAL or _LOUD.search(_plain(folder)) is not None


@lru_cache(4096)
def holds_masks(folder: str) -> bool:
    """Whether a name is one that masks, labels and other annotations are kept under."""
    return "".join(_split(folder)) in _IS_MASKS


def is_mask_name(stem: str) -> bool:
    """Whether a file is named as the mask of another: "normal (1)_mask", "0001-label"."""
    return _MASK_FILE.search(stem.casefold()) is not None


def without_mask_name(stem: str) -> str:
    """The name of the image that a mask of this name belongs to."""
    return _MASK_FILE.sub("", stem.casefold())


def _split(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", _plain(name)) if word]


def _tokens(name: str) -> list[str]:
    """The words of a name, less numbers and words that say nothing, if others are left."""
    words = _split(name)
    telling = [word for word in words if word not in _SAY_NOTHING and not word.isdigit()]
    return telling or words
