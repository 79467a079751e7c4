"""The public data sets known by name: what is known of them, and files in their published forms."""

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from research.config import non_default_fields
from research.data.corpus import Corpus
from research.data.preparation import datasets
from research.data.preparation.datasets import DATASETS, raw_file
from research.data.preparation.download import ARCHIVES
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from research.runs.corpus import open_corpus
from tests.support.command_line import command_error
from tests.support.histories import histories


def written(path: Path, content: str) -> Path:
    """The file, packed where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def prepared(tmp_path: Path, name: str, content: str, **options: object) -> Corpus:
    """The corpus of a data set whose file has this content and its published name."""
    raw = written(tmp_path / DATASETS[name].files[0], content)
    config = PrepareConfig(source=name, raw=str(raw), **options)
    return prepare(config, data_root=tmp_path / "data")


# A line of each published file; of those with a header, the header too.
REVIEW_2014 = (
    '{"reviewerID": "A1YJEY40YUW4SE", "asin": "7806397051", "reviewerName": "Andrea", '
    '"helpful": [3, 4], "reviewText": "Very oily and creamy. Not \\"at all\\".", "overall": 1.0, '
    '"summary": "Don\'t waste your money", "unixReviewTime": 1391040000, '
    '"reviewTime": "01 30, 2014"}\n'
)
REVIEW_2018 = (
    '{"overall": 5.0, "vote": "4", "verified": true, "reviewTime": "09 1, 2016", "reviewerID": '
    '"A3CIUOJXQ5VDQ2", "asin": "B0000530HU", "style": {"Size:": " 7.0 oz", "Flavor:": " Classic"}, '
    '"reviewerName": "Shelly F", "reviewText": "As advertised.", "summary": "Five Stars", '
    '"unixReviewTime": 1472688000}\n'
)
REVIEW_2023 = (
    '{"rating": 5.0, "title": "Such a lovely scent but not overpowering.", "text": "Nice. ...", '
    '"images": [{"small_image_url": "https://x/a.jpg", "attachment_type": "IMAGE"}], "asin": '
    '"B00YQ6X8EO", "parent_asin": "B00YQ6X8E1", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", '
    '"timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}\n'
)
STEAM = (
    "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', "
    "u'page_order': 0, u'date': u'2017-12-17', u'text': u'This would not be \"acceptable\".', "
    "u'early_access': False, u'page': 1}\n"
)
YELP = (
    '{"review_id":"KU_O5udG6zpxOg-VcAEodg","user_id":"mh_-eMZ6K5RLWhZyISBhwA","business_id":'
    '"XQfwVwDr-v0ZS3_CbbE5Xw","stars":3.0,"useful":0,"funny":0,"cool":0,"text":"If you decide to '
    'eat here, just be aware.","date":"2018-07-07 22:09:11"}\n'
)
LASTFM = "userID\tartistID\ttagID\ttimestamp\n2\t52\t13\t1238536800000\n2\t63\t15\t-428720400000\n"
GOWALLA = (
    "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
    "0\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t420315\n"
)
RETAILROCKET = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,257597,view,355908,\n"
    "1433221332116,257597,transaction,1000,234\n"
)
DIGINETICA = (
    "sessionId;userId;itemId;timeframe;eventdate\n"
    "1;NA;81766;526309;2016-05-09\n1;NA;31331;1031018;2016-05-09\n1;NA;32118;243569;2016-05-09\n"
    "2;17;9654;75848;2016-05-10\n"
)
CLICKS = "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n"
BUYS = "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n"
FORMS: dict[str, tuple[str, dict[str, list[str]], list[int]]] = {
    "amazon-2014-beauty": (REVIEW_2014, {"A1YJEY40YUW4SE": ["7806397051"]}, [1391040000]),
    "amazon-2018-all-beauty": (REVIEW_2018, {"A3CIUOJXQ5VDQ2": ["B0000530HU"]}, [1472688000]),
    "amazon-2023-all-beauty": (
        REVIEW_2023,
        {"AGKHLEW2SOWHNMFQIJGBECAF7INQ": ["B00YQ6X8E1"]},
        [1588687728],
    ),
    "amazon-2014-beauty-ratings": (
        "A39HTATAQ9V7YF,0205616461,5.0,1369699200\n",
        {"A39HTATAQ9V7YF": ["0205616461"]},
        [1369699200],
    ),
    "amazon-2018-all-beauty-ratings": (
        "0143026860,A1V6B6TNIC10QE,1.0,1424304000\n",
        {"A1V6B6TNIC10QE": ["0143026860"]},
        [1424304000],
    ),
    "amazon-2023-all-beauty-ratings": (
        "user_id,parent_asin,rating,timestamp\nAGKHLEW2S,B00YQ6X8EO,5.0,1588687728923\n",
        {"AGKHLEW2S": ["B00YQ6X8EO"]},
        [1588687728],
    ),
    "steam": (STEAM, {"Chaos Syren": ["725280"]}, [1513468800]),
    "yelp": (YELP, {"mh_-eMZ6K5RLWhZyISBhwA": ["XQfwVwDr-v0ZS3_CbbE5Xw"]}, [1531001351]),
    "lastfm-2k": (LASTFM, {"2": ["63", "52"]}, [-428720400, 1238536800]),
    "gowalla": (GOWALLA, {"0": ["420315", "22847"]}, [1287440263, 1287532527]),
    "retailrocket": (RETAILROCKET, {"257597": ["1000", "355908"]}, [1433221332, 1433221332]),
    "diginetica": (
        DIGINETICA,
        {"1": ["32118", "81766", "31331"], "2": ["9654"]},
        [1462752243, 1462752526, 1462753031, 1462838475],
    ),
    "yoochoose-clicks": (CLICKS, {"1": ["214536502", "214536500"]}, [1396867869, 1396868049]),
    "yoochoose-buys": (BUYS, {"420374": ["214537888"]}, [1396809898]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_in_its_published_form_is_read(tmp_path: Path, name: str) -> None:
    content, expected, seconds = FORMS[name]
    corpus = prepared(tmp_path, name, content)
    assert histories(corpus) == expected
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == seconds
    assert corpus.name == name


def test_every_data_set_has_a_form_that_is_tested() -> None:
    kinds = {re.sub(r"^(amazon-[0-9]{4}).*?(-ratings)?$", r"\1\2", name) for name in DATASETS}
    tested = {re.sub(r"^(amazon-[0-9]{4}).*?(-ratings)?$", r"\1\2", name) for name in FORMS}
    assert kinds - tested == {*ARCHIVES, *(name for name in DATASETS if name.startswith("s3rec-"))}


def test_s3rec_attributes_are_read_beside_the_text(tmp_path: Path) -> None:
    written(tmp_path / "LastFM_item2attributes.json", '{"1": [7], "2": [8, 7]}')
    corpus = prepared(tmp_path, "s3rec-lastfm", "1 1 2\n2 2\n")
    assert histories(corpus) == {"1": ["1", "2"], "2": ["2"]}
    assert list(corpus.attribute_names) == ["7", "8"]


def test_a_data_set_has_the_fingerprint_of_its_format(tmp_path: Path) -> None:
    by_name = prepared(tmp_path, "amazon-2018-all-beauty", REVIEW_2018)
    config = PrepareConfig(
        source="jsonl",
        raw=str(tmp_path / "All_Beauty_5.json.gz"),
        user_column="reviewerID",
        item_column="asin",
        timestamp_column="unixReviewTime",
    )
    by_format = prepare(config, data_root=tmp_path / "other")
    assert by_name.fingerprint == by_format.fingerprint
    assert (by_name.name, by_format.name) == ("amazon-2018-all-beauty", "All_Beauty_5")


def test_options_that_are_given_are_used(tmp_path: Path) -> None:
    reviews = REVIEW_2018 + REVIEW_2018.replace('"overall": 5.0', '"overall": 2').replace(
        "B0000530HU", "B1"
    )
    corpus = prepared(tmp_path, "amazon-2018-all-beauty", reviews, min_rating=3.0)
    assert histories(corpus) == {"A3CIUOJXQ5VDQ2": ["B0000530HU"]}
    by_variant = prepared(tmp_path, "amazon-2023-all-beauty", REVIEW_2023, item_column="asin")
    assert list(by_variant.item_names) == ["B00YQ6X8EO"]
    with pytest.raises(
        InputError, match=r"--user-column is for atomic, csv, .*; diginetica does not use"
    ):
        prepared(tmp_path, "diginetica", DIGINETICA, user_column="userId")


def test_a_file_is_found_where_it_was_placed(tmp_path: Path) -> None:
    place = tmp_path / "raw" / "steam"
    message = (
        r"steam: steam_reviews\.json\.gz is not here.* Get steam_reviews\.json\.gz from "
        rf"https://.*place it at {place / 'steam_reviews.json.gz'}, or name it with --raw FILE"
    )
    for _ in ("prepare", "open"):
        with pytest.raises(InputError, match=message):
            open_corpus("steam", str(tmp_path))
    written(place / "steam_reviews.json.gz", STEAM)
    corpus = open_corpus("steam", str(tmp_path))
    assert histories(corpus) == {"Chaos Syren": ["725280"]}
    assert open_corpus("steam", str(tmp_path)).folder == corpus.folder
    assert corpus.folder.parent == tmp_path / "corpora"


def test_a_steam_user_may_have_a_word_for_nothing_as_a_name(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "steam", STEAM.replace("Chaos Syren", "null"))
    assert histories(corpus) == {"null": ["725280"]}


def test_an_unpacked_file_is_found_too(tmp_path: Path) -> None:
    assert raw_file(DATASETS["gowalla"], tmp_path) is None
    path = written(tmp_path / "raw" / "gowalla" / "loc-gowalla_totalCheckins.txt", GOWALLA)
    assert raw_file(DATASETS["gowalla"], tmp_path) == path
    corpus = prepare(PrepareConfig(source="gowalla"), data_root=tmp_path)
    assert histories(corpus) == {"0": ["420315", "22847"]}


def test_a_file_that_is_not_the_published_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = prepared(tmp_path, "gowalla", GOWALLA)
    (warning,) = corpus.manifest.report["warnings"]  # type: ignore[misc]
    assert re.fullmatch(
        r"loc-gowalla_totalCheckins\.txt\.gz: the sha256 is [0-9a-f]{64}, but that of the "
        r"published file is c1c3e19e.*; this is another version of it, or it is damaged\.",
        warning,
    )
    sha256 = hashlib.sha256((tmp_path / "loc-gowalla_totalCheckins.txt.gz").read_bytes())
    published = {"loc-gowalla_totalCheckins.txt.gz": f"sha256:{sha256.hexdigest()}"}
    assert (
        datasets._warning_of(
            tmp_path / "loc-gowalla_totalCheckins.txt.gz",
            published["loc-gowalla_totalCheckins.txt.gz"],
        )
        == ""
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sessionId;itemId\n1;2\n", r"line 1: sessionId;itemId; expected sessionId;userId;itemId"),
        (DIGINETICA.replace("2016-05-10", "soon"), r"line 5, column 'eventdate': 'soon' is neith"),
        (DIGINETICA.replace("75848", "late"), r"line 5, column 'timeframe': 'late' is not a numb"),
        (DIGINETICA.replace("75848", "9" * 30), r"line 5: a time that is too large"),
        (DIGINETICA + "3;4;;5;2016-05-10\n", r"line 6, column 'itemid': the cell is empty"),
    ],
)
def test_a_bad_file_of_diginetica_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"train-item-views\.csv, {message}"):
        prepared(tmp_path, "diginetica", content)


def test_what_is_known_is_well_formed() -> None:
    for name, dataset in DATASETS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert dataset.page.startswith("https://")
        assert dataset.archive is None or dataset.archive.startswith("https://")
        assert dataset.options.raw is None
        assert dataset.size is None or dataset.size.source
        for text in dataset.checksums.values():
            algorithm, digest = text.split(":")
            assert len(digest) == hashlib.new(algorithm).digest_size * 2
        # A template names how a file is read, and filters nothing.
        changed = non_default_fields(PrepareConfig, vars(dataset.options))
        filters = {"min_rating", "user_core", "item_core", "duplicates", "missing"}
        assert not filters & set(changed)
    assert set(ARCHIVES) <= set(DATASETS)


def test_counts_are_those_of_the_sources() -> None:
    size = DATASETS["amazon-2014-beauty"].size
    assert size is not None
    assert (size.users, size.items, size.events) == (22_363, 12_101, 198_502)
    rounded = DATASETS["amazon-2023-video-games"].size
    assert rounded is not None
    assert rounded.is_rounded
    assert (rounded.users, rounded.items, rounded.events) == (2_800_000, 137_200, 4_600_000)
    assert DATASETS["amazon-2018-all-beauty"].size is None


def test_an_unknown_name_suggests_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown source 'steem'; known: .*; did you mean steam"):
        prepare(PrepareConfig(source="steem"), data_root=tmp_path)
    with pytest.raises(InputError, match=r"did you mean .*amazon-2018-all-beauty"):
        open_corpus("amazon-2018-beauty", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        (
            "amazon-2018-all-beauty",
            REVIEW_2018,
            ["--rating-column", "rating", "--min-rating", "4"],
            "no line has the field 'rating'",
        ),
        ("yoochoose-clicks", CLICKS, ["--header", "True"], "there is no column '3'"),
        ("lastfm-2k", LASTFM, ["--user-column=user"], "there is no column 'user'"),
    ],
)
def test_options_typed_with_their_default_take_the_place_of_the_data_set_s(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    content: str,
    words: list[str],
    message: str,
) -> None:
    raw = written(tmp_path / DATASETS[name].files[0], content)
    command = ["prepare", name, "--raw", str(raw), "--data-root", str(tmp_path / "data"), *words]
    assert re.search(message, command_error(capsys, *command))
