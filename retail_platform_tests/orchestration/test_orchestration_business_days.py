"""Files without a business day are kept under the day on the store's clock, as soon as the stores have arrived."""

from datetime import date
from pathlib import Path

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.settings import FeedSettings, Settings


def test_times_in_utc_are_kept_under_the_day_of_their_store(tmp_path: Path) -> None:
    declared = FeedSettings(time_zone="UTC", business_date_from="sold_at")
    settings = Settings(home=tmp_path, feeds={"pos_sales": declared})
    lake = Lakehouse(settings)
    lake.prepare()
    for feed, lines in {
        "stores": "store_id,time_zone\nBER,Europe/Berlin\nNYC,America/New_York\n",
        "pos_sales": "store_id,item_id,quantity,sold_at\n"
        "BER,I1,1,2017-03-26T22:30:00\nNYC,I1,1,2017-03-26T22:30:00\nLON,I1,1,2017-03-26T22:30:00\n",
    }.items():
        (settings.landing / feed).mkdir(parents=True)
        (settings.landing / feed / "file.csv").write_text(lines)
        assert ingest_feed(lake, feed, "run").broken == []
    days = dict(lake.read("raw.pos_sales", columns=["store_id", "partition_date"]).iter_rows())
    arrival = lake.read("raw.ingested_files", columns=["ingested_at"], where="feed = 'pos_sales'").item().date()
    assert days == {"BER": date(2017, 3, 27), "NYC": date(2017, 3, 26), "LON": arrival}


def test_a_file_without_the_declared_source_of_its_day_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, feeds={"pos_sales": FeedSettings(business_date_from="sold_at")})
    lake = Lakehouse(settings)
    lake.prepare()
    (settings.landing / "pos_sales").mkdir(parents=True)
    (settings.landing / "pos_sales" / "file.csv").write_text("business_date,store_id,item_id,quantity\n")
    (refusal,) = ingest_feed(lake, "pos_sales", "run").broken
    assert "required columns are missing: sold_at" in refusal
