"""Public data sets other than Amazon's: what is known of each, and the options that read it.

`amazon.py` has Amazon's. What no source tells is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from research.data.preparation.download import ARCHIVES
from research.data.preparation.known_dataset import KnownDataset, Size
from research.data.preparation.options import PrepareConfig

_README = "README of the archive"
_RECSYS_DATASETS = "RecSysDatasets (RUCAIBox), dataset_info/"
# Users, movies, ratings, and the source; ml-latest grows, so it has no counts. The README of ml-1m
# has "approximately 3,900" movies.
_MOVIELENS = {
    "ml-100k": (943, 1_682, 100_000, _README),
    "ml-1m": (6_040, None, 1_000_209, _README),
    "ml-10m": (69_878, 10_681, 10_000_054, f"{_RECSYS_DATASETS}MovieLens/README.md"),
    "ml-20m": (138_493, 27_278, 20_000_263, _README),
    "ml-25m": (162_541, 62_423, 25_000_095, _README),
    "ml-32m": (200_948, 87_585, 32_000_204, _README),
    "ml-latest-small": (610, 9_742, 100_836, _README),
}
# Users, items, events, and the MD5 of the text and of the attributes where it was computed.
_S3REC = {
    "Beauty": (
        *(22_363, 12_101, 198_502),
        *("cb03635343187f36526ed4ba48102b53", "d4955784543b9e8e68385db31cb30144"),
    ),
    "Sports_and_Outdoors": (
        *(35_598, 18_357, 296_337),
        *("9691c051152edf528a56581da65b1ce3", "3d1a7223d3fe8a66b3e168059f483db6"),
    ),
    "Toys_and_Games": (19_412, 11_924, 167_597, "b139ecacfc81d0fb642bc2f448f13843", None),
    "Yelp": (30_431, 20_033, 316_354, "da7989002c123e7680afaaa5141fb85b", None),
    "LastFM": (
        *(1_090, 3_646, 52_551),
        *("e4fa30bf2ba80aba718e55f108561814", "81d69e7872d6d11fa455c04bf7758659"),
    ),
}
_S3REC_PAGE = "https://github.com/RUCAIBox/CIKM2020-S3Rec"


def movielens_datasets() -> Iterator[KnownDataset]:
    """MovieLens, which `prepare` downloads."""
    for name, archive in ARCHIVES.items():
        counts = _MOVIELENS.get(name)
        yield KnownDataset(
            name=name,
            about="MovieLens: ratings of movies",
            page="https://grouplens.org/datasets/movielens/",
            archive=archive.url,
            files=(f"{name}.zip",),
            options=PrepareConfig(source=name),
            size=None
            if counts is None
            else Size(users=counts[0], items=counts[1], events=counts[2], source=counts[3]),
            attributes="genres, decade of the release",
            license="GroupLens's terms, in the README of the archive: for research",
            checksums={} if archive.md5 is None else {f"{name}.zip": f"md5:{archive.md5}"},
            is_downloaded=True,
        )


def s3rec_datasets() -> Iterator[KnownDataset]:
    """S3-Rec's five text files; counts and checksums are those of the files."""
    for title, (users, items, events, text_md5, attributes_md5) in _S3REC.items():
        text, attributes = f"{title}.txt", f"{title}_item2attributes.json"
        checksums = {text: f"md5:{text_md5}"}
        if attributes_md5 is not None:
            checksums[attributes] = f"md5:{attributes_md5}"
        yield KnownDataset(
            name=f"s3rec-{title.lower().replace('_', '-')}",
            about=f"S3-Rec's {title.replace('_', ' ')}: histories without times, 5-core",
            page=_S3REC_PAGE,
            archive=f"{_S3REC_PAGE}/tree/master/data",
            files=(text, attributes),
            options=PrepareConfig(source="s3rec"),
            size=Size(users=users, items=items, events=events, source="the file"),
            attributes=f"numbers, found in {attributes} beside the text",
            checksums=checksums,
        )


# Form: one dictionary of Python 2 a line; username and product_id are its ids, a date its time.
# Checksum and fields: OmniRec (ISG-Siegen), data_loaders/steam_reviews.py.
_STEAM = KnownDataset(
    name="steam",
    about="Steam: reviews of games, with the day of each",
    page="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    archive="https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz",
    files=("steam_reviews.json.gz", "steam_games.json.gz"),
    options=PrepareConfig(
        source="jsonl",
        user_column="username",
        item_column="product_id",
        timestamp_column="date",
        # Users choose their names.
        missing_words=("",),
    ),
    size=Size(users=2_567_538, events=7_793_069, source=f"{_RECSYS_DATASETS}Steam/README.md"),
    attributes="steam_games.json.gz describes the games; lines are Python dictionaries",
    checksums={
        "steam_reviews.json.gz": "sha256:"
        "40c6343deedf488689987749c5f8435233da48c163fbaa2a7766c215d584bc61"
    },
)
_YELP = KnownDataset(
    name="yelp",
    about="Yelp: reviews of businesses; each year's version has the same file names",
    page="https://www.yelp.com/dataset",
    files=("yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"),
    options=PrepareConfig(
        source="jsonl",
        user_column="user_id",
        item_column="business_id",
        timestamp_column="date",
        rating_column="stars",
    ),
    size=Size(
        users=1_987_929,
        items=150_346,
        events=6_990_280,
        source=f"{_RECSYS_DATASETS}Yelp/README.md, the version of 2022",
    ),
    attributes="categories, separated by commas (yelp_academic_dataset_business.json, id "
    "business_id)",
    license="Yelp Dataset Terms of Use: for personal, educational and academic purposes",
)
# Counts and files: the README in the archive. Checksum: OmniRec, data_loaders/hetrec_lastfm.py.
_LASTFM = KnownDataset(
    name="lastfm-2k",
    about="HetRec 2011 Last.fm: an event is a tag that a user gave to an artist",
    page="https://grouplens.org/datasets/hetrec-2011/",
    archive="https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
    files=("user_taggedartists-timestamps.dat", "artists.dat"),
    options=PrepareConfig(
        source="csv",
        delimiter="\t",
        user_column="userID",
        item_column="artistID",
        time_unit="ms",
    ),
    size=Size(users=1_892, items=17_632, events=186_479, source=_README),
    checksums={
        "hetrec2011-lastfm-2k.zip": "sha256:"
        "6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c"
    },
)
# Form: user, time in ISO 8601, latitude, longitude, place. Checksum: OmniRec, data_loaders/
# gowalla.py. Counts: DataRec (sisinflab), registry/metrics/gowalla_checkins.yml; SNAP's page has
# 6,442,890 check-ins.
_GOWALLA = KnownDataset(
    name="gowalla",
    about="Gowalla: check-ins at places, February 2009 to October 2010",
    page="https://snap.stanford.edu/data/loc-gowalla.html",
    archive="https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
    files=("loc-gowalla_totalCheckins.txt.gz",),
    options=PrepareConfig(
        source="csv",
        header=False,
        delimiter="\t",
        user_column="1",
        timestamp_column="2",
        item_column="5",
    ),
    size=Size(users=107_092, items=1_280_969, events=6_442_892, source="DataRec"),
    checksums={
        "loc-gowalla_totalCheckins.txt.gz": "sha256:"
        "c1c3e19effba649b6c89aeab3c1f9459fad88cfdc2b460fc70fd54e295d83ea0"
    },
)
# Form: timestamp (ms), visitorid, event (view, addtocart, transaction), itemid, transactionid.
_RETAILROCKET = KnownDataset(
    name="retailrocket",
    about="Retailrocket: views, additions to carts and purchases of a shop, all read as events",
    page="https://www.kaggle.com/retailrocket/ecommerce-dataset",
    files=("events.csv",),
    options=PrepareConfig(source="csv", user_column="visitorid", item_column="itemid"),
    size=Size(users=1_407_580, events=2_756_101, source="the data set's page"),
)
_DIGINETICA = KnownDataset(
    name="diginetica",
    about="Diginetica, CIKM Cup 2016: views of products; users are sessions",
    page="https://competitions.codalab.org/competitions/11161",
    files=("train-item-views.csv",),
    options=PrepareConfig(source="diginetica"),
)


def yoochoose_datasets() -> Iterator[KnownDataset]:
    """The clicks and buys of the RecSys Challenge 2015: session, time, item and more."""
    for kind, users, items, events in (
        ("clicks", 9_249_729, 52_739, 33_003_944),
        ("buys", 509_696, 19_949, 1_150_753),
    ):
        yield KnownDataset(
            name=f"yoochoose-{kind}",
            about=f"YOOCHOOSE, RecSys Challenge 2015: {kind} of a shop; users are sessions",
            page="https://2015.recsyschallenge.com/challenge.html",
            archive="https://s3-eu-west-1.amazonaws.com/yc-rdata/yoochoose-data.7z",
            files=(f"yoochoose-{kind}.dat",),
            options=PrepareConfig(
                source="csv",
                header=False,
                delimiter=",",
                user_column="1",
                timestamp_column="2",
                item_column="3",
            ),
            size=Size(
                users=users,
                items=items,
                events=events,
                source=f"{_RECSYS_DATASETS}YOOCHOOSE/README.md",
            ),
            license="Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 (its README)",
        )


def public_datasets() -> Iterator[KnownDataset]:
    """Every data set of this file."""
    yield from movielens_datasets()
    yield from s3rec_datasets()
    yield from (_STEAM, _YELP, _LASTFM, _GOWALLA, _RETAILROCKET, _DIGINETICA)
    yield from yoochoose_datasets()
