"""What colcon installs. The metadata that ROS reads is in package.xml."""

from setuptools import setup

PACKAGE = "pilotage_ros"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=[PACKAGE],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Pilotage maintainers",
    maintainer_email="maintainers@pilotage.example.org",
    description="Pilotage as a ROS 2 lifecycle node.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"pilotage = {PACKAGE}.node:main"]},
)
