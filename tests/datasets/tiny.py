"""Tiny data sets in exactly the official formats of the large ones, as the recipes' pages describe them.

folder = write("taobao_ad", tmp_path)
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

INTERACTIONS = "recsyschallenge_v2017_interactions_final_anonym_training_export"
PROFILES = "recsyschallenge_v2017_users_final_anonym_export_unique"
POSTINGS = "recsyschallenge_v2017_items_export"
USERS_2017 = (
    "id", "jobroles", "career_level", "discipline_id", "industry_id", "country", "region", "experience_n_entries_class",
    "experience_years_experience", "experience_years_in_current", "edu_degree", "edu_fieldofstudies", "wtcj", "premium",
)  # fmt: skip
ITEMS_2017 = (
    "id", "title", "career_level", "discipline_id", "industry_id", "country", "is_payed", "region", "latitude", "longitude", "employment",
    "tags", "created_at",
)  # fmt: skip


def lines(path: Path, *rows: str) -> None:
    path.write_text("".join(f"{row}\n" for row in rows))


def amazon(folder: Path) -> None:
    rng = np.random.default_rng(0)
    reviews = [
        {
            "reviewerID": f"A{u:013}", "asin": f"B{i:09}", "reviewerName": 'J. "Mc" Donald', "helpful": [2, 3],
            "reviewText": "it's ok\n{'asin'", "overall": float(rng.integers(1, 6)), "summary": "ok",
            "unixReviewTime": 1_252_800_000 + 86_400 * u, "reviewTime": "09 13, 2009",
        }
        for u in range(12) for i in range(8)
    ]  # fmt: skip
    with gzip.open(folder / "reviews_Electronics_5.json.gz", "wt") as file:
        file.writelines(json.dumps(r) + "\n" for r in reviews)
    root = "Electronics"
    products: list[dict[str, object]] = [
        {"asin": "B000000000", "description": "it's", "title": 'A "B"', "price": 9.99, "imUrl": "u", "related": {"also_bought": ["B1"]},
         "salesRank": {}, "brand": "",
         "categories": [[root, "Computers & Accessories", "Cables, Wires"], [root, "Audio", "Cables, Wires"]]},
        {"asin": "B000000001", "categories": [[root]]},
        {"asin": "B999999999", "price": 1.0, "categories": [[root, "Never reviewed"]]},
        {"imUrl": "asin first is not promised", "asin": "B000000002", "price": 5.0, "brand": "Sony", "categories": [[root, "Audio"]]},
    ]  # fmt: skip
    with gzip.open(folder / "meta_Electronics.json.gz", "wt") as file:
        file.writelines(f"{p!r}\n" for p in products)


def taobao_ad(folder: Path) -> None:
    day = 1_493_999_999  # a second before 6 May 2017 in UTC+8
    shown = [(d, u, c) for d in range(8) for u, c in ((7, d % 2), (8, 1), (9, 0))]
    log = [f"{u},{day + 1 + 86_400 * d + u},{1 + (u + d) % 5},430548_1007,{1 - c},{c}" for d, u, c in shown]
    lines(folder / "raw_sample.csv", "user,time_stamp,adgroup_id,pid,nonclk,clk", *log)
    lines(
        folder / "user_profile.csv",
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,new_user_class_level ",
        "7,0,5,2,5,,3,0,3",
        "8,5,2,2,2,1,3,1,",
    )
    ads = [f"{a},{6406 + a},{83237 + a},{a},{'NULL' if a == 1 else 95471},{170.0 * a}" for a in range(1, 6)]
    lines(folder / "ad_feature.csv", "adgroup_id,cate_id,campaign_id,customer,brand,price", *ads)


def taobao_behavior(folder: Path) -> None:
    """Users 1 and 2 view forty items and act on twenty; user 3 only looks, user 4 buys unseen; one event lies before the period."""
    rows = ["1,1,1001,pv,1511539199"]
    for user in (1, 2):
        rows += [f"{user},{item},{1000 + item % 3},pv,{1511544070 + 60 * item}" for item in range(40)]
        rows += [f"{user},{item},{1000 + item % 3},{('cart', 'fav', 'buy')[item % 3]},{1511544071 + 60 * item}" for item in range(0, 40, 2)]
    rows += [f"3,{item},{1000 + item % 3},pv,1511600000" for item in range(40)]
    rows += [f"4,{item},{1000 + item % 3},buy,1511600000" for item in range(40)]
    lines(folder / "UserBehavior.csv", *rows[::-1])


def features(**found: str) -> str:
    """`f205="12:1.0"` -> the field, feature and value between their marks; several features of a field after a blank."""
    pairs = [(name[1:].replace("__", "_"), *one.split(":")) for name, many in found.items() for one in many.split()]
    return "\x01".join(f"{field}\x02{feature}\x03{value}" for field, feature, value in pairs)


def ali_ccp(folder: Path) -> None:
    for part, samples in (("train", 60), ("test", 20)):
        common = []
        for u in range(6):
            known = {"f124": "3:1.0"} if u else {}
            user = features(f109__14=f"{u}01:0.5 {u}02:1.5", f101=f"{1000 + u}:1.0", f121="98:1.0", f129="1214:1.0", **known)
            common.append(f"{part}{u},{5 + len(known)},{user}")
        lines(folder / f"common_features_{part}.csv", *common)
        rows = []
        for n in range(samples):
            click, conversion = int(n % 3 == 0), int(n % 6 == 0)
            item = {"f216": "9:1.0", "f205": f"{20500 + n % 7}:1.0", "f206": f"{n % 7 % 2}:1.0", "f210": "5:1.0 6:1.0"}
            rows.append(f"{n},{click},{conversion},{part}{n % 6},7,{features(**item, f508='1:2.19722', f301='1:1.0')}")
        impossible = features(f205="20500:1.0")
        lines(folder / f"sample_skeleton_{part}.csv", *rows, *([f"{samples},0,1,{part}0,1,{impossible}"] if part == "train" else []))


def recsys2017(folder: Path) -> None:
    def table(name: str, prefix: str, columns: tuple[str, ...], rows: list[str]) -> None:
        lines(folder / name, "\t".join(f"{prefix}.{c}" for c in columns), *rows)

    users, items = range(1, 7), range(100, 110)
    events = [f"{u}\t{i}\t0\t{1_478_000_000 + 3_600 * (u + 10 * (i - 100))}" for u in users for i in items]
    events += [f"{u}\t{i}\t{1 + (u + i) % 5}\t{1_478_000_100 + 3_600 * (u + 10 * (i - 100))}" for u in users for i in items if (u + i) % 2]
    events += ["1\t999\t5\t1478000000"]  # a recruiter's interest, and nothing of the user's
    table("interactions.csv", INTERACTIONS, ("user_id", "item_id", "interaction_type", "created_at"), events)
    table("users.csv", PROFILES, USERS_2017, [
        f"{u}\t{'11,12' if u > 1 else '0'}\t3\t17\t9\tde\t{u}\t1\t2\t3\t0\t{'1,4' if u > 2 else ''}\t0\t{u % 2}" for u in users
    ])  # fmt: skip
    made = {i: "null" if i == 101 else str(1_470_000_000 + i) for i in items}
    place = {i: "\t" if i == 100 else f"{48.1 + i}\t11.5" for i in items}
    table("items.csv", POSTINGS, ITEMS_2017, [f"{i}\t{i},7\t3\t17\t9\tnon_dach\t0\t0\t{place[i]}\t1\t5,6\t{made[i]}" for i in items])


FLAGS = ("realshow", "rerank_pos", "rerank_neg", "rank_pos", "rank_neg", "coarse_neg", "prerank_neg")
FATES = (("realshow", "rerank_pos", "rank_pos"), ("rerank_neg", "rank_pos"), ("rank_neg",), ("coarse_neg",), ("prerank_neg",))


def recflow(folder: Path) -> None:
    """Three days of four requests with two videos of each fate, and one row without any."""
    (folder / "all_stage").mkdir()
    midnight = 1_708_012_800_000  # 16 February 2024 in UTC+8
    for day, name in enumerate(("2024-02-16", "2024-02-17", "2024-02-18")):
        rows = []
        for request in range(4):
            for place, fate in enumerate((*FATES, *FATES)):
                video = (7 * request + place) % 30
                view = int("realshow" in fate and (request + place) % 2 == 0)
                rows.append({
                    "request_id": 10 * day + request, "request_timestamp": midnight + 86_400_000 * day + 1000 * request,
                    "user_id": request % 3, "device_id": request % 3, "age": 1 + request % 3, "gender": request % 2, "province": day,
                    "video_id": video, "author_id": video % 7, "category_level_one": video % 3, "category_level_two": video % 5,
                    "upload_type": video % 2, "upload_timestamp": 1_700_000_000 + video, "duration": 10_000 + 1000 * video,
                    **{flag: int(flag in fate) for flag in FLAGS}, "rank_index": place if place < 3 else 0, "rerank_index": 0,
                    "playing_time": 9000 * view, "effective_view": view, "long_view": view * (place == 0), "like": view * (place != 0),
                    "follow": 0, "forward": 0, "comment": 0,
                })  # fmt: skip
        rows.append({**rows[-1], "video_id": 29, **dict.fromkeys(FLAGS, 0)})
        pl.DataFrame(rows).write_ipc(folder / "all_stage" / f"{name}.feather", compression="lz4", compat_level=pl.CompatLevel.oldest())


WRITERS: dict[str, Callable[[Path], None]] = {
    "amazon": amazon,
    "taobao_ad": taobao_ad,
    "taobao_behavior": taobao_behavior,
    "ali_ccp": ali_ccp,
    "recsys2017": recsys2017,
    "recflow": recflow,
}
OPTIONS: dict[str, dict[str, int]] = {"taobao_behavior": {"min_impressions": 40, "min_positives": 20}}  # that tiny users can meet


def write(name: str, folder: Path) -> Path:
    """The data set's official files in `folder`, which is made."""
    folder.mkdir(parents=True)
    WRITERS[name](folder)
    return folder
