"""The files of small MovieLens archives, in each of the published formats."""

from __future__ import annotations

FLAGS = {"Toy Story": (3, 4, 5), "unknown": (0,), "Amélie": (5, 14)}
U_DATA = "196\t2\t3\t881250949\n22\t1\t1\t878887116\n196\t1\t5\t881250949\n22\t3\t2\t878887115\n"
CSV = "userId,movieId,rating,timestamp\n" + U_DATA.replace("\t", ",").replace(",5,", ",4.5,")
DAT = U_DATA.replace("\t", "::")
ATTRIBUTES = {
    "2": [],
    "1": ["decade:1990s", "genre:Animation", "genre:Children's", "genre:Comedy"],
    "3": ["decade:2000s", "genre:Comedy", "genre:Romance"],
}


def u_item(item: int, title: str, year: str) -> str:
    """Return a movie's line of u.item."""
    flags = ["1" if flag in FLAGS[title] else "0" for flag in range(19)]
    return "|".join([str(item), title + year, "01-Jan-1995", "", "http://x", *flags]) + "\n"


def archive_files(name: str) -> dict[str, bytes]:
    """Return the files of an archive, by name: four ratings of three movies."""
    items = u_item(1, "Toy Story", " (1995)") + u_item(2, "unknown", "")
    items += u_item(3, "Amélie", " (2001) (V)")
    movies = "1::Toy Story (1995)::Animation|Children's|Comedy\n"
    movies += "2::unknown::(no genres listed)\n3::Amélie (2001) (V)::Comedy|Romance\n"
    rows = 'movieId,title,genres\n1,Toy Story (1995),"Animation|Children\'s|Comedy"\n'
    rows += "2,unknown,(no genres listed)\n3,Amélie (2001) (V),Comedy|Romance\n"
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + U_DATA
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    item += "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tunkonwn\tunkonwn\tunknown\n"
    item += "3\tAmélie (2001)\tV\tComedy Romance\n"
    return {
        "ml-100k": {"u.data": U_DATA.encode(), "u.item": items.encode("latin-1")},
        "recbole": {"ml-100k.inter": inter.encode(), "ml-100k.item": item.encode()},
        "ml-1m": {"ratings.dat": DAT.encode(), "movies.dat": movies.encode("latin-1")},
        "ml-10m": {"ratings.dat": DAT.encode(), "movies.dat": movies.encode()},
        "ml-20m": {"ratings.csv": CSV.encode(), "movies.csv": rows.encode()},
    }[name]
