"""Amazon's reviews of 2014, 2018 and 2023, by category: files, options and counts.

Reviews are JSON lines; of 2014 and 2018 those of the 5-core, of 2023 all. The `-ratings` data sets
are the CSV files with no more than ids, ratings and times, of all reviews. Forms of the files:
jmcauley's pages (addresses below), and OmniRec's loaders for the rating files, whose columns are in
another order in 2018 than in 2014.
"""

from __future__ import annotations

from collections.abc import Iterator

from research.data.preparation.amazon_checksums import SHA256
from research.data.preparation.known_dataset import KnownDataset, Size
from research.data.preparation.options import PrepareConfig

_PAGES = {
    "2014": "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    "2018": "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    "2023": "https://amazon-reviews-2023.github.io/",
}
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data/"
# Addresses of the reviews and of the ratings; {} is the category.
_ADDRESSES = {
    "2014": (f"{_SNAP}reviews_{{}}_5.json.gz", f"{_SNAP}ratings_{{}}.csv"),
    "2018": (
        f"{_LAB}amazon_v2/categoryFilesSmall/{{}}_5.json.gz",
        f"{_LAB}amazon_v2/categoryFilesSmall/{{}}.csv",
    ),
    "2023": (
        "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_2023/raw/review_categories/"
        "{}.jsonl.gz",
        f"{_LAB}amazon_2023/benchmark/0core/rating_only/{{}}.csv.gz",
    ),
}
_META = {
    "2014": "categories, brand (meta_{}.json.gz, id asin; lines are Python dictionaries)",
    "2018": "category, brand (meta_{}.json.gz, id asin)",
    "2023": "categories, main_category, store (meta_{}.jsonl.gz, id parent_asin)",
}
_REVIEWER = PrepareConfig(
    source="jsonl",
    user_column="reviewerID",
    item_column="asin",
    timestamp_column="unixReviewTime",
    rating_column="overall",
)
_REVIEW_OPTIONS = {
    "2014": _REVIEWER,
    "2018": _REVIEWER,
    "2023": PrepareConfig(
        source="jsonl", user_column="user_id", item_column="parent_asin", rating_column="rating"
    ),
}
_RATING_OPTIONS = {
    "2014": PrepareConfig(
        source="csv",
        header=False,
        delimiter=",",
        user_column="1",
        item_column="2",
        rating_column="3",
        timestamp_column="4",
    ),
    "2018": PrepareConfig(
        source="csv",
        header=False,
        delimiter=",",
        item_column="1",
        user_column="2",
        rating_column="3",
        timestamp_column="4",
    ),
    "2023": PrepareConfig(
        source="csv", delimiter=",", user_column="user_id", item_column="parent_asin"
    ),
}
# Users, items and events. Source of the first: TheDatasetsDilemma (almightyGOSU), its table
# Datasets/characteristics_table_basic_detailed.txt, which counts the 5-core.
_CORE_2014 = """
Amazon_Instant_Video 5,130 1,685 37,126
Apps_for_Android 87,271 13,209 752,937
Automotive 2,928 1,835 20,473
Baby 19,445 7,050 160,792
Beauty 22,363 12,101 198,502
Books 603,668 367,982 8,898,041
CDs_and_Vinyl 75,258 64,443 1,097,592
Cell_Phones_and_Accessories 27,879 10,429 194,439
Clothing_Shoes_and_Jewelry 39,387 23,033 278,677
Digital_Music 5,541 3,568 64,706
Electronics 192,403 63,001 1,689,188
Grocery_and_Gourmet_Food 14,681 8,713 151,254
Health_and_Personal_Care 38,609 18,534 346,355
Home_and_Kitchen 66,519 28,237 551,682
Kindle_Store 68,223 61,934 982,619
Movies_and_TV 123,960 50,052 1,697,533
Musical_Instruments 1,429 900 10,261
Office_Products 4,905 2,420 53,258
Patio_Lawn_and_Garden 1,686 962 13,272
Pet_Supplies 19,856 8,510 157,836
Sports_and_Outdoors 35,598 18,357 296,337
Tools_and_Home_Improvement 16,638 10,217 134,476
Toys_and_Games 19,412 11,924 167,597
Video_Games 24,303 10,672 231,780
"""
# Source: RecSysDatasets (RUCAIBox), dataset_info/Amazon/README.md, which lacks one category.
_ALL_2014 = """
Amazon_Instant_Video 426,922 23,965 583,933
Apps_for_Android 1,323,884 61,275 2,638,172
Automotive 851,418 320,112 1,373,768
Baby 531,890 64,426 915,446
Beauty 1,210,271 249,274 2,023,070
Books 8,026,324 2,330,066 22,507,155
Cell_Phones_and_Accessories 2,261,045 319,678 3,447,249
Clothing_Shoes_and_Jewelry 3,117,268 1,136,004 5,748,920
Digital_Music 478,235 266,414 836,006
Electronics 4,201,696 476,002 7,824,482
Grocery_and_Gourmet_Food 768,438 166,049 1,297,156
Health_and_Personal_Care 1,851,132 252,331 2,982,326
Home_and_Kitchen 2,511,610 410,243 4,253,926
Kindle_Store 1,406,890 430,530 3,205,467
Movies_and_TV 2,088,620 200,941 4,607,047
Musical_Instruments 339,231 83,046 500,176
Office_Products 909,314 130,006 1,243,186
Patio_Lawn_and_Garden 714,791 105,984 993,490
Pet_Supplies 740,985 103,288 1,235,316
Sports_and_Outdoors 1,990,521 478,898 3,268,695
Tools_and_Home_Improvement 1,212,468 260,659 1,926,047
Toys_and_Games 1,342,911 327,698 2,252,771
Video_Games 826,767 50,210 1,324,753
"""
# Source: the table "Grouped by Category" of the data set's page, which rounds.
_ALL_2023 = """
All_Beauty 632.0K 112.6K 701.5K
Amazon_Fashion 2.0M 825.9K 2.5M
Appliances 1.8M 94.3K 2.1M
Arts_Crafts_and_Sewing 4.6M 801.3K 9.0M
Automotive 8.0M 2.0M 20.0M
Baby_Products 3.4M 217.7K 6.0M
Beauty_and_Personal_Care 11.3M 1.0M 23.9M
Books 10.3M 4.4M 29.5M
CDs_and_Vinyl 1.8M 701.7K 4.8M
Cell_Phones_and_Accessories 11.6M 1.3M 20.8M
Clothing_Shoes_and_Jewelry 22.6M 7.2M 66.0M
Digital_Music 101.0K 70.5K 130.4K
Electronics 18.3M 1.6M 43.9M
Gift_Cards 132.7K 1.1K 152.4K
Grocery_and_Gourmet_Food 7.0M 603.2K 14.3M
Handmade_Products 586.6K 164.7K 664.2K
Health_and_Household 12.5M 797.4K 25.6M
Health_and_Personal_Care 461.7K 60.3K 494.1K
Home_and_Kitchen 23.2M 3.7M 67.4M
Industrial_and_Scientific 3.4M 427.5K 5.2M
Kindle_Store 5.6M 1.6M 25.6M
Magazine_Subscriptions 60.1K 3.4K 71.5K
Movies_and_TV 6.5M 747.8K 17.3M
Musical_Instruments 1.8M 213.6K 3.0M
Office_Products 7.6M 710.4K 12.8M
Patio_Lawn_and_Garden 8.6M 851.7K 16.5M
Pet_Supplies 7.8M 492.7K 16.8M
Software 2.6M 89.2K 4.9M
Sports_and_Outdoors 10.3M 1.6M 19.6M
Subscription_Boxes 15.2K 641 16.2K
Tools_and_Home_Improvement 12.2M 1.5M 27.0M
Toys_and_Games 8.1M 890.7K 16.3M
Unknown 23.1M 13.2M 63.8M
Video_Games 2.8M 137.2K 4.6M
"""
_UNITS = {"K": 10**3, "M": 10**6}


def _count(text: str) -> int:
    """1,234 of "1,234", and 632000 of "632.0K"."""
    unit = _UNITS.get(text[-1])
    return int(text.replace(",", "")) if unit is None else round(float(text[:-1]) * unit)


def _sizes(table: str, source: str, *, is_rounded: bool = False) -> dict[str, Size]:
    sizes = {}
    for line in table.strip().splitlines():
        category, *counts = line.split()
        users, items, events = map(_count, counts)
        sizes[category] = Size(
            users=users, items=items, events=events, source=source, is_rounded=is_rounded
        )
    return sizes


_REVIEW_SIZES = {
    "2014": _sizes(_CORE_2014, "TheDatasetsDilemma"),
    "2018": {},
    "2023": _sizes(_ALL_2023, _PAGES["2023"], is_rounded=True),
}
_RATING_SIZES = {"2014": _sizes(_ALL_2014, "RecSysDatasets"), "2018": {}, "2023": {}}


def amazon_datasets() -> Iterator[KnownDataset]:
    """Reviews and ratings of each year and category."""
    for year, page in _PAGES.items():
        for category, sha256 in SHA256[year].items():
            name = f"amazon-{year}-{category.lower().replace('_', '-')}"
            words = category.replace("_", " ")
            reviews, ratings = (address.format(category) for address in _ADDRESSES[year])
            described = _META[year].format(category)
            meta = described.partition("(")[2].partition(",")[0]
            which = "all reviews" if year == "2023" else "reviews of the 5-core"
            yield KnownDataset(
                name=name,
                about=f"Amazon {year}, {words}: {which}",
                page=page,
                archive=reviews,
                files=(reviews.rpartition("/")[2], meta),
                options=_REVIEW_OPTIONS[year],
                size=_REVIEW_SIZES[year].get(category),
                attributes=described,
            )
            file = ratings.rpartition("/")[2]
            yield KnownDataset(
                name=f"{name}-ratings",
                about=f"Amazon {year}, {words}: ratings of all reviews, without their text",
                page=page,
                archive=ratings,
                files=(file, meta),
                options=_RATING_OPTIONS[year],
                size=_RATING_SIZES[year].get(category),
                attributes=described,
                checksums={file: f"sha256:{sha256}"},
            )
