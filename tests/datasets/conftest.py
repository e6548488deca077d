"""Small files in exactly the official formats, and a cache folder of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

# user::movie::rating::timestamp
RATINGS = """\
1::10::5::978300760
1::20::3::978302109
2::10::1::978298413
2::30::4::978220179
3::20::2::978199279
3::30::5::978158471
"""
USERS = "1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::15::55117-1234\n"
MOVIES = """\
10::Toy Story (1995)::Animation|Children's|Comedy
20::Star Wars: Episode IV (1977)::Sci-Fi
30::Cité des enfants perdus, La (1995)::Adventure
"""

LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
LOG = [
    "0,7,20220504,2300,1651676400000,1,0,0,0,0,0,1,61802,49866,0,0,0,0,1",
    "1,7,20220504,2359,1651679999999,0,0,0,0,0,0,0,9,49866,0,0,0,0,1",
    "1,8,20220505,0,1651680000000,0,0,0,0,0,0,0,1184,11933,0,0,0,0,4",
    "1,8,20220505,0,1651680000000,0,0,0,0,0,0,0,1184,11933,0,0,0,0,4",  # an exact duplicate
    "1,8,20220505,0,1651680000000,0,0,0,0,0,0,0,1185,11933,0,0,0,0,4",  # not one: another play time
    "0,8,20220506,930,1651800600000,1,1,0,0,0,0,0,5,11933,0,0,0,0,1",
]
USER_HEADER = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,follow_user_num_range,"
    "fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,register_days_range,"
    + ",".join(f"onehot_feat{i}" for i in range(18))
)
USER_ROWS = [
    '0,full_active,0,1,1,514,500+,150,"[100,1k)",34,"[30,60)",799,730+,1,1,29,949,1.0,0,0,14,135,6,3,0,0.0,1.0,0.0,0.0,0.0,0.0',
    '1,full_active,0,-124,1,457,"(250,500]",20,"[10,100)",3,"[1,5)",1474,730+,1,3,2,1160,,0,0,31,283,6,2,2,,,,,,',
]
VIDEO_HEADER = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,music_type,tag"
)
VIDEO_ROWS = [
    "7,7349781,NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,9155697141,9.0,39",
    '8,2103883,NORMAL,2022-04-10,Kmovie,0.0,,720.0,1280.0,6355810746,,"39,68"',
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PRERANK_DATA", raising=False)


@pytest.fixture
def ml1m(tmp_path: Path) -> Path:
    folder = tmp_path / "official" / "ml-1m"
    folder.mkdir(parents=True)
    for name, text in (("ratings.dat", RATINGS), ("users.dat", USERS), ("movies.dat", MOVIES)):
        (folder / name).write_bytes(text.encode("iso-8859-1"))
    return folder


@pytest.fixture
def kuairand(tmp_path: Path) -> Path:
    folder = tmp_path / "official" / "kuairand-pure"
    folder.mkdir(parents=True)
    write_csv(folder / "log_standard_4_22_to_5_08_pure.csv", [LOG_HEADER, *LOG])
    write_csv(folder / "user_features_pure.csv", [USER_HEADER, *USER_ROWS])
    write_csv(folder / "video_features_basic_pure.csv", [VIDEO_HEADER, *VIDEO_ROWS])
    return folder


def write_csv(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
